"""Choosing the device, making its results repeatable, and explaining what stops a computation on it."""

from __future__ import annotations

import contextlib
import math
import os
from typing import TYPE_CHECKING, Literal

from ltrec.errors import UserError, one_line
from ltrec.process import cores

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

DeviceName = Literal["auto", "cpu", "cuda"]


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


def make_deterministic(seed: int) -> None:
    """Seed torch's generators, and have torch warn of operations that do not repeat."""
    import torch

    # cuBLAS repeats only with a fixed workspace; it reads this when it first starts.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # The better-known torch.use_deterministic_algorithms loads the compiler, for longer than many a stage works.
    torch.set_deterministic_debug_mode("warn")
    # Filling would cost a pass over every new tensor, only to find those that are read before they are written.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.manual_seed(seed)


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
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
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
