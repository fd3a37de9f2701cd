"""The training loop of the representation: plain arguments in, callbacks out. B images an update, C classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ltrec import profiling
from ltrec.compute.device import require_finite
from ltrec.compute.distributed import SINGLE_PROCESS
from ltrec.compute.precision import autocast
from ltrec.errors import UserError
from ltrec.training.mixing import blend
from ltrec.training.step import ComputeConfig, Gradients, compiler_explained

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch import Tensor, nn
    from torch.optim.swa_utils import AveragedModel

    from ltrec.compute.distributed import World
    from ltrec.compute.precision import Precision
    from ltrec.training.mixing import Targets

    Batch = tuple[Tensor, Tensor]

LR = "params.yaml: represent.optimizer.lr"
# Steps after which the losses are looked at: each look waits for the device.
_LOOK_EVERY = 50


@dataclass(frozen=True)
class EpochReport:
    """What an epoch did, on all ranks together.

    Attributes:
        epoch: Counted from 0.
        loss: Mean training loss over the images shown.
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
    loss: nn.Module,
    batches: Callable[[int], Iterable[Batch]],
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    *,
    epochs: range,
    batch_size: int,
    seed: int,
    on_epoch: Callable[[EpochReport], None],
    clip_norm: float | None = None,
    mixup: float | None = None,
    average: AveragedModel | None = None,
    compute: ComputeConfig | None = None,
    gradient_scaler: torch.amp.GradScaler | None = None,
    world: World = SINGLE_PROCESS,
) -> None:
    """Train epoch after epoch.

    Args:
        network: Images (b, H, W, 3) → logits (b, C), on its device.
        loss: Logits (b, C) and targets → the sum of the images' losses, on that device.
        batches: Gives this rank's part of an epoch's batches: images and labels (b,), on the network's device.
        optimizer: Over the network's parameters.
        schedule: Stepped after each update.
        epochs: Those still to do; random layers repeat epoch by epoch, so that a resume changes nothing.
        batch_size: B, images an update, of all ranks together.
        seed: Of the random layers.
        on_epoch: Called after each epoch, with the network in training mode.
        clip_norm: Largest norm that an update's gradient, all parameters' together, keeps.
        mixup: α of the Beta(α, α) that says how much of each image another of its batch replaces, pixels and target
            alike (Zhang et al. 2018); None: nothing. The accuracy reported is that of the larger parts.
        average: Of the network's weights, brought up to date after each update.
        compute: How it computes.
        gradient_scaler: Of fp16's gradients, perhaps that of a training that goes on; None: a new one.
        world: Who trains together.

    Raises:
        UserError: a loss is no longer finite, or the gradients of all batches overflow; the epoch is given up.
    """
    device, compute = next(network.parameters()).device, compute or ComputeConfig()
    gradients = Gradients(network, loss, batch_size, compute, gradient_scaler=gradient_scaler, world=world)
    scale, updates = gradients.scaler.get_scale(), 0
    network.train()
    for epoch in epochs:
        torch.manual_seed((seed * 1_000_003 + epoch) * world.size + world.rank)
        given = batches(epoch)
        shown: Iterable[tuple[Tensor, Targets]] = given
        if mixup is not None:
            shown = blend(given, mixup, (seed, epoch, world.rank))
        lr = float(optimizer.param_groups[0]["lr"])
        tally = _Tally(device, world, epoch, lr)
        with compiler_explained(compute.compiled):
            for images, targets in profiling.waiting(shown, "loading"):
                if not updates:
                    gradients.fit_memory(images, targets)
                optimizer.zero_grad(set_to_none=True)
                tally.add(*gradients.accumulate(images, targets), len(images))
                with profiling.span("optimizer"):
                    if clip_norm is not None:
                        gradients.scaler.unscale_(optimizer)
                        torch.nn.utils.clip_grad_norm_(network.parameters(), clip_norm)
                    gradients.scaler.step(optimizer)
                    gradients.scaler.update()
                    schedule.step()
                    if average is not None:
                        average.update_parameters(network)
                updates += 1
                profiling.step()
        report = tally.report()
        if epoch == epochs[-1]:
            _require_an_update(gradients.scaler, scale, updates)
        on_epoch(report)


def _require_an_update(scaler: torch.amp.GradScaler, before: float, updates: int) -> None:
    """An update whose gradients overflow in fp16 is left out, and the scale halved: not all of them may be."""
    if scaler.is_enabled() and scaler.get_scale() <= before * scaler.get_backoff_factor() ** updates:
        raise UserError(
            f"in fp16 the gradients of all {updates} updates overflowed: nothing was learnt; allowed here: fp32, and"
            " bf16 where the GPU has it, or more epochs",
            where="params.yaml: represent.precision",
        )


class _Tally:
    """Losses and hits of an epoch, left on the device for some steps at a time."""

    def __init__(self, device: torch.device, world: World, epoch: int, lr: float) -> None:
        self._world, self._epoch, self._lr = world, epoch, lr
        self._losses: list[Tensor] = []
        self._hits = torch.zeros((), dtype=torch.int64, device=device)
        self._shown = 0
        self._steps, self._loss = 0, 0.0

    def add(self, loss: Tensor, hits: Tensor, shown: int) -> None:
        self._losses.append(loss)
        self._hits += hits
        self._shown += shown
        if len(self._losses) == _LOOK_EVERY:
            self._look()

    def _look(self) -> None:
        if not self._losses:
            return
        losses = torch.stack(self._losses).double()
        self._world.sum(losses)
        for step, loss in enumerate(losses.tolist(), start=self._steps):
            require_finite(loss, "the loss", epoch=self._epoch, step=step, lr=self._lr, where=LR)
            self._loss += loss
        self._steps += len(self._losses)
        self._losses.clear()

    def report(self) -> EpochReport:
        self._look()
        counts = torch.stack([self._hits, torch.full_like(self._hits, self._shown)])
        self._world.sum(counts)
        hits, shown = counts.tolist()
        return EpochReport(self._epoch, self._loss / shown, hits / shown, self._lr, shown)


def moving_average(network: nn.Module, decay: float) -> AveragedModel:
    """A copy of the network that `train` keeps as an exponential moving average of its weights.

    Buffers are averaged like weights: batch-norm statistics of the last network would not be those of the
    activations that averaged weights give.
    """
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    average_of = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    return AveragedModel(network, multi_avg_fn=average_of, use_buffers=True)


@torch.inference_mode()
def validate(
    network: nn.Module,
    batches: Iterable[Batch],
    classes: int,
    *,
    precision: Precision = "fp32",
    world: World = SINGLE_PROCESS,
) -> tuple[float, float]:
    """How well a network does, in evaluation mode; its own mode is restored.

    Args:
        network: Images (b, H, W, 3) → logits (b, C), on its device.
        batches: This rank's images and labels (b,), on that device; all ranks' together are what is judged.
        classes: C.
        precision: Of the arithmetic.
        world: Who judges together.

    Returns:
        Balanced accuracy, and the largest absolute logit, infinite if one is not finite.
    """
    device, training = next(network.parameters()).device, network.training
    network.eval()
    hits, counts = torch.zeros((2, classes), dtype=torch.int64, device=device)
    largest = torch.zeros((), device=device)
    for images, labels in batches:
        if not len(labels):
            continue
        with autocast(precision, device):
            logits = network(images).float()
        counts.index_add_(0, labels, torch.ones_like(labels))
        hits.index_add_(0, labels, (logits.argmax(dim=1) == labels).long())
        largest = torch.maximum(largest, logits.abs().nan_to_num(nan=torch.inf, posinf=torch.inf).max())
    network.train(training)
    world.sum(hits, counts)
    world.maximum(largest)
    present = counts > 0
    return float((hits[present].double() / counts[present]).mean()), float(largest)
