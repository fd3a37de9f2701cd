"""In which precision a network computes; its weights are float32 in each."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Literal

from ltrec.errors import UserError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    import torch

Precision = Literal["fp32", "bf16", "fp16"]
PrecisionName = Literal["auto", "fp32", "bf16", "fp16"]


def resolve(name: PrecisionName, device: torch.device) -> Precision:
    """`auto` is bf16 on a GPU that has it, not only emulates it, and fp32 elsewhere.

    Raises:
        UserError: bf16 is asked of a GPU without it.
    """
    import torch

    native = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    if name == "auto":
        return "bf16" if native else "fp32"
    if name == "bf16" and device.type == "cuda" and not native:
        raise UserError(
            "this GPU has no bf16; allowed here: auto, fp32, fp16", where="params.yaml: represent.precision"
        )
    return name


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """What runs inside computes in a precision where that is safe, as PyTorch's autocast knows."""
    import torch

    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16 if precision == "bf16" else torch.float16)


def scaler(precision: Precision, device: torch.device) -> torch.amp.GradScaler:
    """Keeps fp16's small gradients from vanishing; does nothing in the others."""
    import torch

    return torch.amp.GradScaler(device.type, enabled=precision == "fp16")
