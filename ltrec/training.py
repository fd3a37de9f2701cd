"""The training loop of the representation: plain arguments in, callbacks out. B images an update, C classes."""

from __future__ import annotations

import contextlib
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F

from ltrec import console, profiling
from ltrec.device import require_finite
from ltrec.distributed import ALONE
from ltrec.errors import UserError
from ltrec.precision import Precision, autocast, scaler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager

    from torch import Tensor, nn
    from torch.optim.swa_utils import AveragedModel

    from ltrec.distributed import Ranks
    from ltrec.network import Network

    Batch = tuple[Tensor, Tensor]

Compilation = Literal["off", "default", "reduce-overhead"]

LR = "params.yaml: represent.optimizer.lr"
# Steps after which the losses are looked at: each look waits for the device.
_LOOK_EVERY = 50


@dataclass(frozen=True)
class EpochReport:
    """What an epoch did, on all ranks together.

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


@dataclass(frozen=True)
class Mode:
    """How a training computes; but for rounding, and batch norm where batches are cut, it learns the same.

    Attributes:
        precision: Of the network's arithmetic.
        compiled: What `torch.compile` does to it; `reduce-overhead` records CUDA graphs.
        pieces: In how many parts, one after another, a batch goes through the network.
        yields: Whether pieces are halved, instead of giving up, while the device's memory does not hold them.
    """

    precision: Precision = "fp32"
    compiled: Compilation = "off"
    pieces: int = 1
    yields: bool = False


def train(
    network: nn.Module,
    batches: Callable[[int], Iterable[Batch]],
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    *,
    epochs: range,
    batch_size: int,
    seed: int,
    on_epoch: Callable[[EpochReport], None],
    clip_norm: float | None = None,
    label_smoothing: float = 0.0,
    average: AveragedModel | None = None,
    mode: Mode | None = None,
    ranks: Ranks = ALONE,
) -> None:
    """Train by cross-entropy, epoch after epoch.

    Args:
        network: Images (b, H, W, 3) → logits (b, C), on its device.
        batches: Gives this rank's part of an epoch's batches: images and labels (b,), on the network's device.
        optimizer: Over the network's parameters.
        schedule: Stepped after each update.
        epochs: Those still to do; random layers repeat epoch by epoch, so that a resume changes nothing.
        batch_size: B, images an update, of all ranks together.
        seed: Of the random layers.
        on_epoch: Called after each epoch, with the network in training mode.
        clip_norm: Largest norm that an update's gradient, all parameters' together, keeps.
        label_smoothing: Share of each target that is spread evenly over all classes (Szegedy et al. 2016).
        average: Of the network's weights, brought up to date after each update.
        mode: How it computes.
        ranks: Who trains together.

    Raises:
        UserError: a loss is no longer finite; the epoch is given up.
    """
    device = next(network.parameters()).device
    gradients = _Gradients(network, batch_size, label_smoothing, mode or Mode(), ranks)
    network.train()
    for epoch in epochs:
        torch.manual_seed((seed * 1_000_003 + epoch) * ranks.size + ranks.rank)
        lr = float(optimizer.param_groups[0]["lr"])
        tally = _Tally(device, ranks, epoch, lr)
        for images, labels in profiling.waiting(batches(epoch), "loading"):
            optimizer.zero_grad(set_to_none=True)
            tally.add(*gradients.of(images, labels), len(labels))
            with profiling.span("optimizer"):
                if clip_norm is not None:
                    gradients.scaler.unscale_(optimizer)
                    torch.nn.utils.clip_grad_norm_(network.parameters(), clip_norm)
                gradients.scaler.step(optimizer)
                gradients.scaler.update()
                schedule.step()
                if average is not None:
                    average.update_parameters(network)
            profiling.step()
        on_epoch(tally.report())


class _Gradients:
    """Adds up the gradients of a batch's mean loss, on all ranks together."""

    def __init__(self, network: nn.Module, batch_size: int, label_smoothing: float, mode: Mode, ranks: Ranks) -> None:
        self._device = next(network.parameters()).device
        self._batch_size, self._label_smoothing = batch_size, label_smoothing
        self._mode, self._ranks, self._pieces = mode, ranks, mode.pieces
        self.scaler = scaler(mode.precision, self._device)
        self._apart: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext
        self._model: Callable[[Tensor], Tensor] = network
        if ranks.size > 1:
            from torch.nn.parallel import DistributedDataParallel

            with warnings.catch_warnings():
                # What takes the argument's place in torch 2.15 is unknown to earlier ones.
                warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
                # Buffers are shared once an epoch, when they matter.
                self._model = parallel = DistributedDataParallel(network, broadcast_buffers=False)
            self._apart = parallel.no_sync
        if mode.compiled != "off":
            self._model = torch.compile(self._model, mode=mode.compiled)

    def of(self, images: Tensor, labels: Tensor) -> Batch:
        """The sum of the losses, and how many of this rank's images were classified right."""
        try:
            return self._in_pieces(images, labels)
        except torch.OutOfMemoryError:
            if self._ranks.size > 1:  # the others would wait for this one
                raise
        self._pieces = self._that_fit(images, labels)
        return self._in_pieces(images, labels)

    def _in_pieces(self, images: Tensor, labels: Tensor) -> Batch:
        loss, hits = torch.zeros((), device=self._device), torch.zeros((), dtype=torch.int64, device=self._device)
        parts = list(zip(images.chunk(self._pieces), labels.chunk(self._pieces), strict=True))
        for number, part in enumerate(parts, start=1):
            with self._apart() if number < len(parts) else contextlib.nullcontext():
                of_part, right = self._backward(*part)
            loss, hits = loss + of_part, hits + right
        return loss, hits

    def _backward(self, images: Tensor, labels: Tensor) -> Batch:
        with profiling.span("forward"), autocast(self._mode.precision, self._device):
            logits = self._model(images).float()
            loss = F.cross_entropy(logits, labels, label_smoothing=self._label_smoothing, reduction="sum")
        with profiling.span("backward"):
            # Over ranks gradients are averaged; what is wanted is the mean over the whole batch's images.
            self.scaler.scale(loss * (self._ranks.size / self._batch_size)).backward()  # type: ignore[no-untyped-call]
        return loss.detach(), (logits.detach().argmax(dim=1) == labels).sum()

    def _that_fit(self, images: Tensor, labels: Tensor) -> int:
        """How many pieces the memory holds one by one.

        Raises:
            UserError: not even two images, or the training was to be given up; says what fits.
        """
        where, pieces = "params.yaml: represent.batch_size", self._pieces
        while (pieces := pieces * 2) <= len(images) // 2:
            for parameter in self._parameters():
                parameter.grad = None
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
            try:
                self._backward(images.chunk(pieces)[0], labels.chunk(pieces)[0])
            except torch.OutOfMemoryError:
                continue
            size = -(-len(images) // pieces)
            if not self._mode.yields:
                raise UserError(
                    f"{len(images)} images at a time need more memory than the GPU has; {size} fit"
                    f" (or represent.accumulate: {pieces}, which makes the same update of pieces, or auto)",
                    where=where,
                )
            console.warn(
                f"{len(images)} images at a time need more memory than the GPU has: from here on batches go through in"
                f" {pieces} pieces of {size}, whose batch-norm statistics are their own"
            )
            for parameter in self._parameters():
                parameter.grad = None
            return pieces
        raise UserError("the GPU's memory does not hold two images at a time", where=where)

    def _parameters(self) -> Iterator[nn.Parameter]:
        assert isinstance(self._model, torch.nn.Module), "a network, bare or wrapped"
        return self._model.parameters()


class _Tally:
    """Losses and hits of an epoch, left on the device for some steps at a time."""

    def __init__(self, device: torch.device, ranks: Ranks, epoch: int, lr: float) -> None:
        self._ranks, self._epoch, self._lr = ranks, epoch, lr
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
        self._ranks.sum(losses)
        for step, loss in enumerate(losses.tolist(), start=self._steps):
            require_finite(loss, "the loss", epoch=self._epoch, step=step, lr=self._lr, where=LR)
            self._loss += loss
        self._steps += len(self._losses)
        self._losses.clear()

    def report(self) -> EpochReport:
        self._look()
        counts = torch.stack([self._hits, torch.full_like(self._hits, self._shown)])
        self._ranks.sum(counts)
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
    network: nn.Module, batches: Iterable[Batch], classes: int, *, precision: Precision = "fp32", ranks: Ranks = ALONE
) -> tuple[float, float]:
    """How well a network does, in evaluation mode; its own mode is restored.

    Args:
        network: Images (b, H, W, 3) → logits (b, C), on its device.
        batches: This rank's images and labels (b,), on that device; all ranks' together are what is judged.
        classes: C.
        precision: Of the arithmetic.
        ranks: Who judges together.

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
    ranks.sum(hits, counts)
    ranks.maximum(largest)
    present = counts > 0
    return float((hits[present].double() / counts[present]).mean()), float(largest)


@torch.inference_mode()
def predict_features(network: Network, images: Tensor, precision: Precision = "fp32") -> Tensor:
    """Features (b, D) of images (b, H, W, 3), float32, on the network's device, where the images are, too."""
    with autocast(precision, images.device):
        return network.features(images).float()
