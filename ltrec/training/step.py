"""The gradient of a batch, in micro-batches and over ranks. B images an update, b of this rank, C classes."""

from __future__ import annotations

import contextlib
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ltrec import console, profiling
from ltrec.compute.distributed import SINGLE_PROCESS
from ltrec.compute.precision import Compilation, Precision, autocast, scaler
from ltrec.errors import UserError, one_line
from ltrec.training.mixing import main_labels, split_targets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from torch import Tensor, nn

    from ltrec.compute.distributed import World
    from ltrec.training.mixing import Targets

_WHERE = "params.yaml: represent.batch_size"
# Devices whose memory a batch may exceed; a CPU's process is killed instead.
_WITH_LITTLE_MEMORY = {"cuda"}


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
        loss: Logits (b, C) and targets → the sum of the images' losses, on that device.
        batch_size: B, images an update, of all ranks together.
        compute: How it computes.
        gradient_scaler: Of fp16's gradients; None: a new one.
        world: Who trains together.
    """

    def __init__(
        self,
        network: nn.Module,
        loss: nn.Module,
        batch_size: int,
        compute: ComputeConfig,
        *,
        gradient_scaler: torch.amp.GradScaler | None = None,
        world: World = SINGLE_PROCESS,
    ) -> None:
        self._network, self._device = network, next(network.parameters()).device
        self._loss, self._batch_size, self._compute, self._world = loss, batch_size, compute, world
        self.micro_batches = compute.micro_batches
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

    def accumulate(self, images: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
        """Add a batch's gradients to those of the parameters.

        Args:
            images: This rank's, (b, H, W, 3).
            targets: Their labels (b,), or those of mixed images.

        Returns:
            The sum of the losses, and how many of this rank's images were classified right, by the label of the larger
            part where images are mixed.
        """
        loss, hits = torch.zeros((), device=self._device), torch.zeros((), dtype=torch.int64, device=self._device)
        parts = list(
            zip(images.tensor_split(self.micro_batches), split_targets(targets, self.micro_batches), strict=True)
        )
        for number, (some_images, some_targets) in enumerate(parts, start=1):
            with self._apart() if number < len(parts) else contextlib.nullcontext():
                part_loss, part_hits = self._backward(some_images, some_targets)
            loss, hits = loss + part_loss, hits + part_hits
        return loss, hits

    def _backward(self, images: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
        with profiling.span("forward"), autocast(self._compute.precision, self._device):
            logits = self._model(images).float()
            loss = self._loss(logits, targets)
        with profiling.span("backward"):
            # Over ranks gradients are averaged; what is wanted is the mean over the whole batch's images.
            self.scaler.scale(loss * (self._world.size / self._batch_size)).backward()
        return loss.detach(), (logits.detach().argmax(dim=1) == main_labels(targets)).sum()

    def fit_memory(self, images: Tensor, targets: Targets) -> None:
        """Try a batch, halving its parts until the GPU's memory holds one; the network stays as it was.

        Args:
            images: As large a batch as there will be, (b, H, W, 3).
            targets: Its targets.

        Raises:
            UserError: Memory does not hold as many images at a time as it should; the line says how many fit.
        """
        if self._device.type not in _WITH_LITTLE_MEMORY or self._world.size > 1:  # the others would wait for this one
            return
        asked, buffers = self.micro_batches, [buffer.clone() for buffer in self._network.buffers()]
        while not self._fits(images, targets):
            most = len(images) // 2  # of two images: batch norm takes no fewer
            if self.micro_batches >= most:
                raise UserError("the GPU's memory does not hold two images at a time", where=_WHERE)
            self.micro_batches = min(2 * self.micro_batches, most)
        for buffer, content in zip(self._network.buffers(), buffers, strict=True):
            buffer.copy_(content)
        if self.micro_batches != asked:
            self._explain(len(images))

    def _fits(self, images: Tensor, targets: Targets) -> bool:
        """Say whether memory holds the batch as it is cut now; random numbers are drawn as if it had not been tried."""
        on_gpu = [self._device] if self._device.type == "cuda" else []
        fits = False
        with torch.random.fork_rng(on_gpu), contextlib.suppress(torch.OutOfMemoryError):
            self.accumulate(images, targets)
            fits = True
        # Behind the handler, whose traceback holds the tensors that are in the way.
        for parameter in self._network.parameters():
            parameter.grad = None
        if on_gpu and not fits:
            torch.cuda.empty_cache()
        return fits

    def _explain(self, images: int) -> None:
        size = -(-images // self.micro_batches)
        if not self._compute.auto_split:
            raise UserError(
                f"{images} images at a time need more memory than the GPU has; {size} fit"
                f" (or represent.accumulate: {self.micro_batches}, the same update in micro-batches, or auto)",
                where=_WHERE,
            )
        console.warn(
            f"{images} images at a time need more memory than the GPU has: batches go through in"
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
