"""Which device computes, and how its results repeat."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

from ltrec.errors import UserError

if TYPE_CHECKING:
    import torch

DeviceName = Literal["auto", "cpu", "cuda"]


def resolve(name: DeviceName) -> torch.device:
    """`auto` is the GPU when there is one.

    Raises:
        UserError: a GPU is asked for and there is none.
    """
    import torch

    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        built = "no GPU is visible to it" if torch.version.cuda else "it was built without CUDA"
        raise UserError(
            f"cuda asked for, but PyTorch {torch.__version__} finds none: {built}; allowed here: auto, cpu",
            where="params.yaml: device",
        )
    return torch.device("cuda" if available and name != "cpu" else "cpu")


def make_deterministic(seed: int) -> None:
    """Seed torch's generators; warn of operations that do not repeat."""
    import torch

    # cuBLAS repeats only with a fixed workspace; it reads this when it first starts.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # The better-known torch.use_deterministic_algorithms loads the compiler, for longer than many a stage works.
    torch.set_deterministic_debug_mode("warn")
    torch.manual_seed(seed)
