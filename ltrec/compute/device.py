"""Choosing the device, making its results repeatable, and explaining what stops a computation on it."""

from __future__ import annotations

import contextlib
import math
import os
import re
from typing import TYPE_CHECKING, Literal

from ltrec.errors import UserError, one_line
from ltrec.process import cores

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from torch import Tensor

DeviceName = Literal["auto", "cpu", "cuda"]
DeterminismName = Literal["warn", "error", "off"]

# What CUDA, cuBLAS and cuDNN say; and PyTorch, when no algorithm of a convolution finds room to work in.
_OUT_OF_MEMORY = re.compile(
    r"out of memory|cudaErrorMemoryAllocation|CU[A-Z]+_STATUS_\w*ALLOC\w*_FAILED|CUDNN_STATUS_NOT_SUPPORTED.*alloc"
    r"|unable to find an engine",
    re.IGNORECASE | re.DOTALL,
)


def resolve(name: DeviceName) -> torch.device:
    """Return the device; `auto` is the GPU when there is one. torch gets no more threads than the process has cores.

    Raises:
        UserError: a GPU is asked for and there is none.
    """
    import torch

    from ltrec.compute.distributed import local_rank

    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        built = "no GPU is visible to it" if torch.version.cuda else "it was built without CUDA"
        raise UserError(
            f"cuda asked for, but PyTorch {torch.__version__} finds none: {built}; allowed here: auto, cpu",
            where="params.yaml: device",
        )
    # torch counts the machine's cores where a container has a quota of them.
    torch.set_num_threads(min(torch.get_num_threads(), cores()))
    if not available or name == "cpu":
        return torch.device("cpu")
    rank, count = local_rank(), torch.cuda.device_count()
    if rank >= count:
        where = "torchrun --nproc-per-node"
        raise UserError(f"process {rank} of this machine has no GPU: there are {count}", where=where)
    torch.cuda.set_device(rank)
    return torch.device("cuda", rank)


@contextlib.contextmanager
def repeatable(seed: int, mode: DeterminismName) -> Iterator[None]:
    """Seed torch's generators, and take those algorithms in the block whose results repeat.

    Args:
        seed: The seed.
        mode: What to do about an operation of a GPU that has no such algorithm: `warn` of it, or take it for an
            `error`; `off`: algorithms are not chosen by that.

    Raises:
        UserError: An operation does not repeat, and that is an error.
    """
    import torch

    if mode != "off":
        # cuBLAS repeats only with a fixed workspace; it reads this when it first starts.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.get_deterministic_debug_mode()
    # The better-known torch.use_deterministic_algorithms loads the compiler, for longer than many a stage works.
    torch.set_deterministic_debug_mode("default" if mode == "off" else mode)
    # Filling would cost a pass over every new tensor, only to find those that are read before they are written.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.manual_seed(seed)
    try:
        yield
    except RuntimeError as error:
        if mode != "error" or "deterministic" not in str(error):
            raise
        raise UserError(
            f"an operation does not repeat on this device ({one_line(error, 160)}); allowed here: warn, off",
            where="params.yaml: deterministic",
        ) from None
    finally:
        torch.set_deterministic_debug_mode(before)


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on a device; a GPU's copy is begun and not waited for, which takes page-locked memory."""
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def is_out_of_memory(error: Exception) -> bool:
    """Return whether a computation failed for want of a GPU's memory; its libraries say so in words alone."""
    import torch

    in_words = isinstance(error, RuntimeError) and _OUT_OF_MEMORY.search(str(error)) is not None
    return in_words or isinstance(error, torch.OutOfMemoryError)


@contextlib.contextmanager
def memory_for(what: str, *, where: str, instead: str) -> Iterator[None]:
    """Turn the block's running out of GPU memory into a line that says what to do.

    Args:
        what: What is computed, in the plural.
        where: The parameter that decides how much it is.
        instead: What the user can do about it.

    Raises:
        UserError: the GPU is out of memory.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(
            f"{what} need more memory than the GPU has; {instead} ({one_line(error, 160)})", where=where
        ) from None


def require_finite(value: float, what: str, *, epoch: int, step: int, lr: float, where: str | None = None) -> None:
    """Stop a training that diverges, which a figure of it shows.

    Args:
        value: The figure, already off the device.
        what: The figure's name.
        epoch: The epoch, counted from 0.
        step: The step of the epoch, counted from 0.
        lr: The learning rate, which may be too high.
        where: The parameter that sets the learning rate.

    Raises:
        UserError: the value is not finite.
    """
    if not math.isfinite(value):
        raise UserError(
            f"{what} is {value} at epoch {epoch + 1}, step {step + 1}; a lower lr than {lr:g} may help", where=where
        )
