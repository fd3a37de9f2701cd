"""The training loop of the representation: plain arguments in, callbacks out."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from ltrec.device import require_finite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import AbstractContextManager

    from torch import Tensor, nn

    from ltrec.network import Network

    Batch = tuple[Tensor, Tensor]


LR = "params.yaml: represent.optimizer.lr"


@dataclass(frozen=True)
class EpochReport:
    """What an epoch did.

    Attributes:
        epoch: Counted from 0.
        loss: Mean cross-entropy over the images shown.
        accuracy: Fraction of the images shown that were classified right while training.
        lr: Learning rate at the epoch's first step.
        images: How many were shown.
    """

    epoch: int
    loss: float
    accuracy: float
    lr: float
    images: int


def train(
    network: nn.Module,
    batches: Callable[[int], Iterable[Batch]],
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    *,
    epochs: range,
    seed: int,
    on_epoch: Callable[[EpochReport], None],
) -> None:
    """Train by cross-entropy, epoch after epoch.

    Args:
        network: Images uint8 (B, H, W, 3) → logits (B, C), on its device.
        batches: Gives an epoch's batches of images and labels (B,), on any device.
        optimizer: Over the network's parameters.
        schedule: Stepped after each update.
        epochs: Those still to do; random layers repeat epoch by epoch, so that a resume changes nothing.
        seed: Of the random layers.
        on_epoch: Called after each epoch, with the network in training mode.

    Raises:
        UserError: the loss is no longer finite; the update that it would have caused is not made.
    """
    device = next(network.parameters()).device
    network.train()
    for epoch in epochs:
        torch.manual_seed(seed * 1_000_003 + epoch)
        lr = float(optimizer.param_groups[0]["lr"])
        loss_sum, hits, shown = 0.0, 0, 0
        for step, batch in enumerate(batches(epoch)):
            images, labels = (tensor.to(device, non_blocking=True) for tensor in batch)
            with autocast(device):
                logits = network(images)
                loss = F.cross_entropy(logits.float(), labels)
            value = loss.item()
            require_finite(value, "the loss", epoch=epoch, step=step, lr=lr, where=LR)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            loss_sum += value * len(labels)
            hits += int((logits.argmax(dim=1) == labels).sum())
            shown += len(labels)
        on_epoch(EpochReport(epoch, loss_sum / shown, hits / shown, lr, shown))


@torch.inference_mode()
def predict_logits(network: nn.Module, batches: Iterable[Batch]) -> Tensor:
    """Logits (N, C) in evaluation mode, float32 on the CPU; the mode is restored."""
    device = next(network.parameters()).device
    training = network.training
    network.eval()
    with autocast(device):
        logits = [network(images.to(device, non_blocking=True)).float().cpu() for images, _ in batches]
    network.train(training)
    return torch.cat(logits)


@torch.inference_mode()
def predict_features(network: Network, images: Tensor) -> Tensor:
    """Features (B, D) of images uint8 (B, H, W, 3), float32 on the CPU; the network is in evaluation mode."""
    device = next(network.parameters()).device
    with autocast(device):
        return network.features(images.to(device, non_blocking=True)).float().cpu()


def autocast(device: torch.device) -> AbstractContextManager[object]:
    """Half precision on a GPU that has bfloat16, not only emulates it; full precision elsewhere."""
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return contextlib.nullcontext()
