"""The gradient of a batch: precision, micro-batches, several processes. b images, C classes."""

from __future__ import annotations

import contextlib
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from ltrec import console, profiling
from ltrec.compute.distributed import SINGLE_PROCESS
from ltrec.compute.precision import Compilation, Precision, autocast, scaler
from ltrec.errors import UserError, one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from torch import Tensor, nn

    from ltrec.compute.distributed import World


_WHERE = "params.yaml: represent.batch_size"


@dataclass(frozen=True)
class ComputeConfig:
    """How a training computes; but for rounding, and batch norm where batches are cut, it learns the same.

    Attributes:
        precision: Of the network's arithmetic.
        compiled: What `torch.compile` does to it; `reduce-overhead` records CUDA graphs.
        micro_batches: In how many parts, one after another, a batch goes through the network.
        auto_split: Whether there are more of them, instead of giving up, while a GPU's memory does not hold one.
    """

    precision: Precision = "fp32"
    compiled: Compilation = "off"
    micro_batches: int = 1
    auto_split: bool = False


class Gradients:
    """Adds up the gradients of a batch's mean loss, on all ranks together.

    Args:
        network: Images (b, H, W, 3) → logits (b, C), on its device.
        batch_size: Images an update, of all ranks together.
        compute: How it computes.
        label_smoothing: Share of each target that is spread evenly over all classes.
        gradient_scaler: Of fp16's gradients; None: a new one.
        world: Who trains together.
    """

    def __init__(
        self,
        network: nn.Module,
        batch_size: int,
        compute: ComputeConfig,
        *,
        label_smoothing: float = 0.0,
        gradient_scaler: torch.amp.GradScaler | None = None,
        world: World = SINGLE_PROCESS,
    ) -> None:
        self._network, self._device = network, next(network.parameters()).device
        self._batch_size, self._label_smoothing = batch_size, label_smoothing
        self._mode, self._ranks = compute, world
        self.micro_batches, self._fits = compute.micro_batches, False
        self.scaler = scaler(compute.precision, self._device) if gradient_scaler is None else gradient_scaler
        self._apart: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext
        self._model: Callable[[Tensor], Tensor] = network
        if world.size > 1:
            from torch.nn.parallel import DistributedDataParallel

            with warnings.catch_warnings():
                # What takes the argument's place in torch 2.15 is unknown to earlier ones.
                warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
                # Buffers are shared once an epoch, when they matter.
                self._model = parallel = DistributedDataParallel(network, broadcast_buffers=False)
            self._apart = parallel.no_sync
        if compute.compiled != "off":
            self._model = torch.compile(self._model, mode=compute.compiled)

    def of(self, images: Tensor, *targets: Tensor) -> tuple[Tensor, Tensor]:
        """The sum of the losses, and how many of this rank's images were classified right.

        Args:
            images: This rank's, (b, H, W, 3).
            targets: Labels (b,); or those of the images, those of what each is blended with, and each image's share.

        Raises:
            UserError: the GPU's memory does not hold them; says what fits.
        """
        before = self.micro_batches
        undo = None if self._fits else self._memory()
        while True:
            try:
                result = self._in_micro_batches(images, *targets)
                break
            except torch.OutOfMemoryError:
                if self._ranks.size > 1:  # the others would wait for this one
                    raise
            # Out of the handler, whose traceback holds the tensors that are in the way.
            self._forget(undo)
            self.micro_batches = self._more_micro_batches(len(images))
        self._fits = True
        if self.micro_batches != before:
            self._explain(len(images))
        return result

    def _in_micro_batches(self, images: Tensor, *targets: Tensor) -> tuple[Tensor, Tensor]:
        loss, hits = torch.zeros((), device=self._device), torch.zeros((), dtype=torch.int64, device=self._device)
        parts = list(zip(*(tensor.tensor_split(self.micro_batches) for tensor in (images, *targets)), strict=True))
        for number, part in enumerate(parts, start=1):
            with self._apart() if number < len(parts) else contextlib.nullcontext():
                of_part, right = self._backward(*part)
            loss, hits = loss + of_part, hits + right
        return loss, hits

    def _backward(
        self, images: Tensor, labels: Tensor, others: Tensor | None = None, shares: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        with profiling.span("forward"), autocast(self._mode.precision, self._device):
            logits = self._model(images).float()
            losses = self._losses(logits, labels)
            if others is not None and shares is not None:
                losses = torch.lerp(self._losses(logits, others), losses, shares)
                labels = torch.where(shares >= 0.5, labels, others)
            loss = losses.sum()
        with profiling.span("backward"):
            # Over ranks gradients are averaged; what is wanted is the mean over the whole batch's images.
            self.scaler.scale(loss * (self._ranks.size / self._batch_size)).backward()  # type: ignore[no-untyped-call]
        return loss.detach(), (logits.detach().argmax(dim=1) == labels).sum()

    def _losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels, label_smoothing=self._label_smoothing, reduction="none")

    def _memory(self) -> tuple[list[Tensor], Tensor, Tensor | None]:
        """What a pass changes beside gradients: buffers, and the states of the random numbers.

        Of the first batch alone, with which what fits is known: a resumed training then finds the same.
        """
        on_gpu = torch.cuda.get_rng_state(self._device) if self._device.type == "cuda" else None
        return [buffer.clone() for buffer in self._network.buffers()], torch.get_rng_state(), on_gpu

    def _forget(self, memory: tuple[list[Tensor], Tensor, Tensor | None] | None) -> None:
        """Undo an attempt."""
        for parameter in self._network.parameters():
            parameter.grad = None
        if memory is not None:
            buffers, on_cpu, on_gpu = memory
            for buffer, content in zip(self._network.buffers(), buffers, strict=True):
                buffer.copy_(content)
            torch.set_rng_state(on_cpu)
            if on_gpu is not None:
                torch.cuda.set_rng_state(on_gpu, self._device)
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _more_micro_batches(self, images: int) -> int:
        most = images // 2  # of two images: batch norm takes no fewer
        if self.micro_batches >= most:
            raise UserError("the GPU's memory does not hold two images at a time", where=_WHERE)
        return min(2 * self.micro_batches, most)

    def _explain(self, images: int) -> None:
        size = -(-images // self.micro_batches)
        if not self._mode.auto_split:
            raise UserError(
                f"{images} images at a time need more memory than the GPU has; {size} fit"
                f" (or represent.accumulate: {self.micro_batches}, the same update in micro-batches, or auto)",
                where=_WHERE,
            )
        console.warn(
            f"{images} images at a time need more memory than the GPU has: from here on batches go through in"
            f" {self.micro_batches} micro-batches of {size}, whose batch-norm statistics are their own"
        )


@contextlib.contextmanager
def compiler_explained(compiled: Compilation) -> Iterator[None]:
    """Say in one line that torch.compile failed, as it does without a C++ compiler."""
    if compiled == "off":
        yield
        return
    from torch._dynamo.exc import BackendCompilerFailed

    try:
        yield
    except BackendCompilerFailed as error:
        raise UserError(
            f"torch.compile failed ({one_line(error, 160)}); it needs a C++ compiler; allowed everywhere: off",
            where="params.yaml: represent.compile",
        ) from None
