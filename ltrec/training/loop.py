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
from ltrec.training.sharpness import climbed
from ltrec.training.step import ComputeConfig, Gradients, compiler_explained

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from torch import Tensor, nn
    from torch.optim.swa_utils import AveragedModel

    from ltrec.compute.distributed import World
    from ltrec.compute.precision import Precision
    from ltrec.training.losses.module import LossModule
    from ltrec.training.mixing import Mix, Targets

    Batch = tuple[Tensor, Tensor]

LR = "params.yaml: represent.optimizer.lr"
# Losses are fetched so many steps at a time: each time waits for the device.
_FETCH_EVERY = 50


@dataclass(frozen=True)
class EpochReport:
    """What an epoch did, on all ranks together.

    Attributes:
        epoch: The epoch, counted from 0.
        loss: The mean training loss over the images shown.
        accuracy: The fraction of them that was classified right while training; mixed ones count as their larger part.
        lr: The learning rate at the epoch's first step; of several the one of the backbone's last layers.
    """

    epoch: int
    loss: float
    accuracy: float
    lr: float


def train(
    network: nn.Module,
    loss: LossModule,
    batches: Callable[[int], Iterable[Batch]],
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    *,
    epochs: range,
    batch_size: int,
    seed: int,
    on_epoch: Callable[[EpochReport], None],
    freeze: Callable[[int], bool] | None = None,
    clip_norm: float | None = None,
    sam_rho: float | None = None,
    constrain: Callable[[], None] | None = None,
    mix: Mix | None = None,
    average: AveragedModel | None = None,
    compute: ComputeConfig | None = None,
    gradient_scaler: torch.amp.GradScaler | None = None,
    world: World = SINGLE_PROCESS,
) -> None:
    """Train the network in place, epoch after epoch.

    Args:
        network: Images (b, H, W, 3) → logits (b, C), on its device.
        loss: Logits (b, C) and targets (b,) → the sum of the images' losses, on that device. It is told of each epoch.
        batches: Gives this rank's part of an epoch's batches: images and labels (b,), on the network's device.
        optimizer: The optimizer of the network's parameters.
        schedule: The learning rate's schedule, stepped after each update.
        epochs: The epochs still to do, up to the last of the training, whatever was done before; each seeds random
            layers anew, so that a resume changes nothing.
        batch_size: B, the images of an update on all ranks together.
        seed: The seed of random layers and of the mix.
        on_epoch: Called after each epoch, with the network in training mode.
        freeze: Called before each epoch, to freeze what does not train in it; returns whether that is something else
            than before. None: what trains stays the same.
        clip_norm: The largest norm that the gradient of all parameters together may have; None: any.
        sam_rho: ρ of sharpness-aware minimisation, which computes each update's gradient twice; None: without it.
        constrain: Called after each update, to bring weights back to where they are allowed to be.
        mix: Mixes an epoch's images and targets with others; None: they stay as they are.
        average: A moving average of the network, updated after each update.
        compute: How the training computes.
        gradient_scaler: The scaler of fp16's gradients in a training that is resumed; None: a new one.
        world: The ranks that train together.

    Raises:
        UserError: A loss is no longer finite, or the gradients of all updates overflow.
    """
    device, compute = next(network.parameters()).device, compute or ComputeConfig()
    gradients = Gradients(network, loss, batch_size, compute, gradient_scaler=gradient_scaler, world=world)
    scale, updates, fits = gradients.scaler.get_scale(), 0, False
    network.train()
    for epoch in epochs:
        seed_layers(seed, epoch, world)
        loss.start_epoch(epoch, epochs.stop)
        if freeze is not None and freeze(epoch):
            fits = False
        plain = batches(epoch)
        shown: Iterable[tuple[Tensor, Targets]] = (
            plain if mix is None else mix.batches(plain, epoch, (seed, epoch, world.rank))
        )
        lr = float(optimizer.param_groups[0]["lr"])
        tally = _Tally(device, world, epoch, lr)
        with compiler_explained(compute.compiled):
            for images, targets in profiling.waiting(shown, "loading"):
                if not fits:
                    gradients.fit_memory(images, targets)
                    fits = True
                optimizer.zero_grad(set_to_none=True)
                tally.add(*gradients.accumulate(images, targets), len(images))
                if sam_rho is not None:
                    with climbed(network, sam_rho):
                        optimizer.zero_grad(set_to_none=True)
                        gradients.accumulate(images, targets)
                with profiling.span("optimizer"):
                    if clip_norm is not None:
                        gradients.scaler.unscale_(optimizer)
                        torch.nn.utils.clip_grad_norm_(network.parameters(), clip_norm)
                    gradients.scaler.step(optimizer)
                    gradients.scaler.update()
                    schedule.step()
                    if constrain is not None:
                        constrain()
                    if average is not None:
                        average.update_parameters(network)
                updates += 1
                profiling.step()
        report = tally.report()
        if epoch == epochs[-1]:
            _require_an_update(gradients.scaler, scale, updates)
        on_epoch(report)


def seed_layers(seed: int, epoch: int, world: World) -> None:
    """Seed what random layers draw in an epoch, on each rank otherwise, whatever was drawn before."""
    torch.manual_seed((seed * 1_000_003 + epoch) * world.size + world.rank)


def _require_an_update(scaler: torch.amp.GradScaler, before: float, updates: int) -> None:
    """Raise UserError if no update was made: fp16 leaves out those whose gradients overflow, and halves the scale."""
    if scaler.is_enabled() and scaler.get_scale() <= before * scaler.get_backoff_factor() ** updates:
        raise UserError(
            f"in fp16 the gradients of all {updates} updates overflowed: nothing was learnt; allowed here: fp32, and"
            " bf16 where the GPU has it, or more epochs",
            where="params.yaml: represent.precision",
        )


class _Tally:
    """Adds up an epoch's losses and hits, which stay on the device for some steps at a time."""

    def __init__(self, device: torch.device, world: World, epoch: int, lr: float) -> None:
        self._world, self._epoch, self._lr = world, epoch, lr
        self._losses: list[Tensor] = []  # those not fetched yet
        self._hits = torch.zeros((), dtype=torch.int64, device=device)
        self._steps, self._shown, self._loss = 0, 0, 0.0

    def add(self, loss: Tensor, hits: Tensor, shown: int) -> None:
        self._losses.append(loss)
        self._hits += hits
        self._shown += shown
        if len(self._losses) == _FETCH_EVERY:
            self._fetch()

    def _fetch(self) -> None:
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
        self._fetch()
        counts = torch.stack([self._hits, torch.full_like(self._hits, self._shown)])
        self._world.sum(counts)
        hits, shown = counts.tolist()
        return EpochReport(self._epoch, self._loss / shown, hits / shown, self._lr)


def moving_average(network: nn.Module, decay: float) -> AveragedModel:
    """Return a copy of the network that `train` keeps as an exponential moving average of its weights.

    After n updates the decay is min(`decay`, (1 + n)/(10 + n)), so that a short training does not keep the random
    weights that it began with. Buffers are averaged too: averaged weights give other activations, and so other
    batch-norm statistics.
    """
    from torch.optim.swa_utils import AveragedModel

    def move(averages: Sequence[Tensor], current: Sequence[Tensor], updates: Tensor | int) -> None:
        share = 1 - torch.clamp(torch.as_tensor((1 + updates) / (10 + updates)), max=decay)
        for average, new in zip(averages, current, strict=True):
            if average.is_floating_point():
                average.lerp_(new, share.to(average.dtype))
            else:
                average.copy_(new)  # counters

    return AveragedModel(network, multi_avg_fn=torch.no_grad()(move), use_buffers=True)


@torch.inference_mode()
def validate(
    network: nn.Module,
    batches: Iterable[Batch],
    classes: int,
    *,
    precision: Precision = "fp32",
    world: World = SINGLE_PROCESS,
) -> tuple[float, float]:
    """Return a network's balanced accuracy, and its largest absolute logit, infinite if one is not finite.

    The network computes in evaluation mode; its own mode is restored.

    Args:
        network: Images (b, H, W, 3) → logits (b, C), on its device.
        batches: This rank's images and labels (b,), on that device; the figures are those of all ranks' images.
        classes: C.
        precision: The precision of the arithmetic.
        world: The ranks that compute together.
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
