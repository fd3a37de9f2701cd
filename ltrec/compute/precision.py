"""The precisions that a network computes in; its weights are float32 in each."""

from __future__ import annotations

import contextlib
import platform
import warnings
from typing import TYPE_CHECKING, Any, Literal

from ltrec.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    import torch

Precision = Literal["fp32", "bf16", "fp16"]
PrecisionSetting = Literal["auto", "fp32", "bf16", "fp16"]
Compilation = Literal["off", "default", "reduce-overhead"]
ProductPrecisionSetting = Literal["auto", "fp32", "bf16"]


def resolve(name: PrecisionSetting, device: torch.device, *, where: str) -> Precision:
    """Return the precision; `auto` is bf16 on a GPU that has it, not only emulates it, and fp32 elsewhere.

    Args:
        name: What the user wants.
        device: Where it is computed.
        where: The parameter by which the user says so.

    Raises:
        UserError: bf16 is asked of a GPU without it.
    """
    if name == "auto":
        return native(device) if device.type == "cuda" else "fp32"
    if name == "bf16" and device.type == "cuda" and native(device) != "bf16":
        raise UserError("this GPU has no bf16; allowed here: auto, fp32, fp16", where=where)
    return name


def native(device: torch.device) -> Precision:
    """Return bf16 where the device has instructions for its products and does not only emulate them, else fp32."""
    import torch

    if device.type == "cuda":
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        has_bf16 = any(has and name.endswith("bf16") for name, has in torch.cpu.get_capabilities().items())
    return "bf16" if has_bf16 else "fp32"


def of_products(name: ProductPrecisionSetting, device: torch.device) -> Precision:
    """Return the precision in which a head learns, which is little but products: `auto` is native, on a CPU too."""
    return native(device) if name == "auto" else name


@contextlib.contextmanager
def exact_float32() -> Iterator[None]:
    """Compute in float32 on a GPU, too, where float32 is asked for.

    From Ampere on, cuDNN's convolutions round what they multiply to TF32 by default, whose 10 bits show in features and
    in the comparison with the exported file.
    """
    import torch

    backends = torch.backends
    with contextlib.ExitStack() as held:
        for operations in (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn):  # type: ignore[attr-defined]
            held.enter_context(_float32_products(operations, "ieee"))
        yield


@contextlib.contextmanager
def fast_float32() -> Iterator[None]:
    """Multiply float32 matrices on a CPU by oneDNN, not by MKL, which takes twice as long on AMD's processors.

    PyTorch asks oneDNN only where it is allowed bf16. On x86-64 without AMX oneDNN has no such kernel and computes in
    float32 all the same; with AMX, and on ARM servers, it would round, and the setting stays as it is.
    """
    import torch

    if platform.machine() not in {"x86_64", "AMD64"} or torch.cpu.get_capabilities().get("amx_bf16"):
        yield
        return
    with _float32_products(torch.backends.mkldnn.matmul, "bf16"):  # type: ignore[attr-defined]
        yield


@contextlib.contextmanager
def _float32_products(operations: Any, allowed: Literal["ieee", "bf16"]) -> Iterator[None]:
    """Allow a backend's operations this precision for the products of float32 numbers; afterwards as before."""
    before, operations.fp32_precision = operations.fp32_precision, allowed
    try:
        yield
    finally:
        operations.fp32_precision = before


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Return a context whose operations compute in a precision where that is safe, as PyTorch's autocast decides."""
    import torch

    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16 if precision == "bf16" else torch.float16)


def scaler(precision: Precision, device: torch.device) -> torch.amp.GradScaler:
    """Return what keeps small gradients from vanishing in fp16; it does nothing in the other precisions."""
    import torch

    if precision == "fp16":
        # The scaler leaves out the first updates, until the scale is right.
        warnings.filterwarnings("ignore", r"Detected call of `lr_scheduler\.step\(\)` before", UserWarning)
    return torch.amp.GradScaler(device.type, enabled=precision == "fp16")
