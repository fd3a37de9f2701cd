"""Which precision a device gets, and what it cannot have."""

from __future__ import annotations

import contextlib

import pytest
import torch

from ltrec.compute.precision import autocast, exact_float32, fast_float32, native, of_products, resolve, scaler
from ltrec.errors import UserError

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def test_auto_is_fp32_but_where_a_gpu_has_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve("auto", CPU, where="here") == "fp32"
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)  # noqa: ARG005
    assert resolve("auto", GPU, where="here") == "bf16"


def test_emulated_bfloat16_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    # Before Ampere a GPU only emulates it, slower than float32.
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert resolve("auto", GPU, where="here") == "fp32"
    assert resolve("fp16", GPU, where="here") == "fp16"
    with pytest.raises(UserError, match=r"here: this GPU has no bf16; allowed here: auto, fp32, fp16"):
        resolve("bf16", GPU, where="here")


def test_products_are_computed_in_it() -> None:
    weight = torch.ones(3, 3)
    assert isinstance(autocast("fp32", CPU), contextlib.nullcontext)
    for precision, dtype in (("bf16", torch.bfloat16), ("fp16", torch.float16)):
        assert resolve(precision, CPU, where="here") == precision  # type: ignore[arg-type]
        with autocast(precision, CPU):  # type: ignore[arg-type]
            assert (weight @ weight).dtype == dtype
    assert [scaler(precision, CPU).is_enabled() for precision in ("fp32", "bf16", "fp16")] == [False, False, True]


def test_heads_learn_in_what_the_processor_multiplies(monkeypatch: pytest.MonkeyPatch) -> None:
    for has, precision in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda has=has: {"avx2": True, "avx512_bf16": has})
        assert native(CPU) == of_products("auto", CPU) == precision
        assert resolve("auto", CPU, where="here") == "fp32", "the representation's is chosen apart"
        assert of_products("fp32", CPU) == "fp32"


@pytest.mark.parametrize("more", [{}, {"amx_bf16": True}])
def test_float32_products_keep_their_digits_however_fast(
    monkeypatch: pytest.MonkeyPatch, more: dict[str, bool]
) -> None:
    # Rounded to bf16, the error would be 3e-3.
    capabilities = torch.cpu.get_capabilities()
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities | more)
    generator = torch.Generator().manual_seed(0)
    left, right = torch.randn(600, 2048, generator=generator), torch.randn(2048, 500, generator=generator)
    exact = left.double() @ right.double()
    before = torch.backends.mkldnn.matmul.fp32_precision
    with fast_float32():
        error = (left @ right - exact).std() / exact.std()
    assert error < 2e-6
    assert torch.backends.mkldnn.matmul.fp32_precision == before


def test_where_it_would_round_nothing_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.backends.mkldnn.matmul.fp32_precision  # type: ignore[attr-defined]
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    with fast_float32():
        assert torch.backends.mkldnn.matmul.fp32_precision == before  # type: ignore[attr-defined]


def float32_settings() -> list[str]:
    backends = torch.backends
    return [each.fp32_precision for each in (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn)]  # type: ignore[attr-defined]


def test_float32_is_not_rounded_to_tf32_on_a_gpu_and_afterwards_as_before() -> None:
    before = float32_settings()
    assert "tf32" in before, "else nothing needs to be switched off"
    with exact_float32(), fast_float32():
        assert float32_settings() == ["ieee"] * 3
    assert float32_settings() == before
    with pytest.raises(RuntimeError, match="bug"), exact_float32():
        raise RuntimeError("bug")
    assert float32_settings() == before
