"""The gradient of a batch, in micro-batches and over ranks. B images an update, b of this rank, C classes."""

from __future__ import annotations

import contextlib
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ltrec import console, profiling
from ltrec.compute.device import is_out_of_memory
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
    """How a training computes; but for rounding, and batch norm where batches are split, it learns the same.

    Attributes:
        precision: The precision of the network's arithmetic.
        compiled: The mode of `torch.compile`; `reduce-overhead` records CUDA graphs.
        micro_batches: The number of parts in which a batch goes through the network, one after another.
        auto_split: Whether batches are split further where a GPU's memory does not hold a part; else that is an error.
    """

    precision: Precision = "fp32"
    compiled: Compilation = "off"
    micro_batches: int = 1
    auto_split: bool = False


class Gradients:
    """Adds up the gradients of a batch's mean loss over all ranks; its arguments are those of `loop.train`."""

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
        self._without_sync: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext
        self._model: Callable[[Tensor], Tensor] = network
        if world.size > 1:
            from torch.nn.parallel import DistributedDataParallel

            with warnings.catch_warnings():
                # The argument that torch 2.15 wants instead is unknown to earlier ones.
                warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
                # Buffers matter once an epoch only, and are shared then.
                self._model = parallel = DistributedDataParallel(network, broadcast_buffers=False)
            self._without_sync = parallel.no_sync
        if compute.compiled != "off":
            self._model = torch.compile(self._model, mode=compute.compiled)

    def accumulate(self, images: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
        """Add a batch's gradients to those of the parameters.

        Args:
            images: This rank's images, (b, H, W, 3).
            targets: Their targets, (b,).

        Returns:
            The sum of the losses, and how many of the images were classified right; a mixed image counts as its larger
            part.
        """
        loss, hits = torch.zeros((), device=self._device), torch.zeros((), dtype=torch.int64, device=self._device)
        split_images, parts = images.tensor_split(self.micro_batches), split_targets(targets, self.micro_batches)
        for number, (micro_batch, micro_targets) in enumerate(zip(split_images, parts, strict=True), start=1):
            with self._without_sync() if number < len(parts) else contextlib.nullcontext():
                micro_loss, micro_hits = self._backward(micro_batch, micro_targets)
            loss, hits = loss + micro_loss, hits + micro_hits
        return loss, hits

    def _backward(self, images: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
        with profiling.span("forward"), autocast(self._compute.precision, self._device):
            logits = self._model(images).float()
            loss = self._loss(logits, targets)
        with profiling.span("backward"):
            # Ranks average their gradients, and the mean is to be over the images of all.
            self.scaler.scale(loss * (self._world.size / self._batch_size)).backward()
        return loss.detach(), (logits.detach().argmax(dim=1) == main_labels(targets)).sum()

    def fit_memory(self, images: Tensor, targets: Targets) -> None:
        """Try a batch as large as any, and halve the micro-batches until the GPU's memory holds one.

        The network stays as it was.

        Raises:
            UserError: Memory does not hold as many images at a time as was asked for; the message says how many fit.
        """
        if self._device.type not in _WITH_LITTLE_MEMORY or self._world.size > 1:  # the others would wait for this one
            return
        buffers = [buffer.clone() for buffer in self._network.buffers()]
        while not self._fits(images, targets):
            most = len(images) // 2  # Batch norm takes no fewer than two images.
            if self.micro_batches >= most:
                raise UserError("the GPU's memory does not hold two images at a time", where=_WHERE)
            self.micro_batches = min(2 * self.micro_batches, most)
        for buffer, content in zip(self._network.buffers(), buffers, strict=True):
            buffer.copy_(content)
        if self.micro_batches != self._compute.micro_batches:
            self._explain_split(len(images))

    def _fits(self, images: Tensor, targets: Targets) -> bool:
        """Return whether memory holds the batch as it is split now; random numbers are drawn as if it was not tried."""
        on_gpu = [self._device] if self._device.type == "cuda" else []
        fits = False
        with torch.random.fork_rng(on_gpu):
            try:
                self.accumulate(images, targets)
                fits = True
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
        # Not in the handler: the traceback holds the tensors that are in the way.
        for parameter in self._network.parameters():
            parameter.grad = None
        if on_gpu and not fits:
            torch.cuda.empty_cache()
        return fits

    def _explain_split(self, images: int) -> None:
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
    """Turn a failure of `torch.compile` in the block into one line; it fails where there is no C++ compiler."""
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
