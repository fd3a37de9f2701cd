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
    from torch.optim.swa_utils import AveragedModel

    from ltrec.network import Network

    Batch = tuple[Tensor, Tensor]


LR = "params.yaml: represent.optimizer.lr"


@dataclass(frozen=True)
class EpochReport:
    """What an epoch did.

    Attributes:
        epoch: Counted from 0.
        loss: Mean cross-entropy over the images shown, with smoothed targets if those train.
        accuracy: Fraction of the images shown that were classified right while training.
        lr: Learning rate at the epoch's first step; the backbone's, if the head has its own.
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
    clip_norm: float | None = None,
    label_smoothing: float = 0.0,
    average: AveragedModel | None = None,
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
        clip_norm: Largest norm that an update's gradient, all parameters' together, keeps.
        label_smoothing: Share of each target that is spread evenly over all classes (Szegedy et al. 2016).
        average: Of the network's weights, brought up to date after each update.

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
                loss = F.cross_entropy(logits.float(), labels, label_smoothing=label_smoothing)
            value = loss.item()
            require_finite(value, "the loss", epoch=epoch, step=step, lr=lr, where=LR)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            if clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(network.parameters(), clip_norm)
            optimizer.step()
            schedule.step()
            if average is not None:
                average.update_parameters(network)
            loss_sum += value * len(labels)
            hits += int((logits.argmax(dim=1) == labels).sum())
            shown += len(labels)
        on_epoch(EpochReport(epoch, loss_sum / shown, hits / shown, lr, shown))


def moving_average(network: nn.Module, decay: float) -> AveragedModel:
    """A copy of the network that `train` keeps as an exponential moving average of its weights.

    Buffers are averaged like weights: batch-norm statistics of the last network would not be those of the
    activations that averaged weights give.
    """
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    average_of = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    return AveragedModel(network, multi_avg_fn=average_of, use_buffers=True)


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
