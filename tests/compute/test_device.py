"""Where things are computed, and that it repeats."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
import torch

from ltrec.compute import device
from ltrec.errors import UserError
from tests.commands import ltrec

if TYPE_CHECKING:
    from pathlib import Path

PARAMS = """
device: cuda
represent: {backbone: {name: cifar_resnet8}}
rebalance: {crt: {method: crt}}
tracking: {enabled: false}
"""


@pytest.mark.parametrize(("available", "expected"), [(False, "cpu"), (True, "cuda")])
def test_auto_is_the_gpu_if_there_is_one(monkeypatch: pytest.MonkeyPatch, available: bool, expected: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", lambda _device: None)
    assert device.resolve("auto").type == expected
    assert device.resolve("cpu").type == "cpu"


def test_each_process_of_a_machine_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert device.resolve("auto") == torch.device("cuda", 1)
    assert taken == [1]
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(UserError, match=r"nproc-per-node: process 2 of this machine has no GPU: there are 2"):
        device.resolve("auto")


def test_a_gpu_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"params\.yaml: device: cuda asked for, .*allowed here: auto, cpu") as raised:
        device.resolve("cuda")
    assert "\n" not in str(raised.value)


def drawn(seed: int) -> torch.Tensor:
    with device.repeatable(seed, "warn"):
        return torch.rand(4)


@pytest.mark.usefixtures("restored_torch")
def test_the_seed_repeats() -> None:
    first = drawn(3)
    assert torch.equal(drawn(3), first)
    assert not torch.equal(drawn(4), first)


@pytest.mark.usefixtures("restored_torch")
@pytest.mark.parametrize(("mode", "debug_mode"), [("warn", 1), ("error", 2), ("off", 0)])
def test_what_does_not_repeat_is_told_of_refused_or_let_be(
    mode: device.DeterminismName, debug_mode: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    before = torch.get_deterministic_debug_mode()
    with device.repeatable(0, mode):
        assert torch.get_deterministic_debug_mode() == debug_mode
        assert ("CUBLAS_WORKSPACE_CONFIG" in os.environ) == (mode != "off")
    assert torch.get_deterministic_debug_mode() == before


@pytest.mark.usefixtures("restored_torch")
def test_an_operation_that_does_not_repeat_is_one_line_if_that_is_an_error() -> None:
    # put_ without accumulation is one of few on a CPU.
    place, values = torch.tensor([0, 0]), torch.tensor([1.0, 2.0])
    with (
        pytest.raises(UserError, match=r"^params\.yaml: deterministic: .*put_.*allowed here: warn, off$") as raised,
        device.repeatable(0, "error"),
    ):
        torch.zeros(1).put_(place, values)
    assert "\n" not in str(raised.value)
    with device.repeatable(0, "off"):
        torch.zeros(1).put_(place, values)
    with pytest.raises(RuntimeError, match="bug"), device.repeatable(0, "error"):
        raise RuntimeError("bug")


def test_a_gpu_is_sent_page_locked_memory_and_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    tensor, done = torch.arange(3), []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: done.append("pinned") or self)
    monkeypatch.setattr(torch.Tensor, "to", lambda self, *to, **how: done.append((*to, how)) or self)
    gpu, cpu = torch.device("cuda", 0), torch.device("cpu")
    device.sent(tensor, gpu)
    assert done == ["pinned", (gpu, {"non_blocking": True})]
    done.clear()
    device.sent(tensor, cpu)
    assert done == [(cpu, {})]


@pytest.mark.parametrize("stage", ["represent", "featurize", "rebalance crt"])
def test_a_stage_without_the_gpu_asked_for_ends_with_exit_code_2(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "params.yaml").write_text(PARAMS, encoding="utf-8")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    done = ltrec(*stage.split(), cwd=tmp_path)
    assert (done.stdout, done.returncode) == ("", 2)
    assert done.stderr.startswith("error: params.yaml: device: cuda asked for, but PyTorch ")
    assert done.stderr.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"params.yaml"}


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("Tried\n 1 GiB"),
    RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB"),
    RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    RuntimeError("cudaErrorMemoryAllocation: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED. Failed to allocate workspace"),
    RuntimeError("GET was unable to find an engine to execute this computation"),
]
OTHER_ERRORS = [
    RuntimeError("bug"),
    RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`"),
    RuntimeError(
        "cuDNN error: CUDNN_STATUS_NOT_SUPPORTED. This error may appear if you passed in a non-contiguous input"
    ),
    RuntimeError("CUDA error: an illegal memory access was encountered"),
    ValueError("out of memory"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=str)
def test_out_of_memory_is_one_line_whoever_says_so(error: Exception) -> None:
    with (
        pytest.raises(UserError, match=r"^here: 8 images need more memory than the GPU has; take 4 \(.+\)$") as raised,
        device.memory_for("8 images", where="here", instead="take 4"),
    ):
        raise error
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("error", OTHER_ERRORS, ids=str)
def test_other_errors_are_not_taken_for_it(error: Exception) -> None:
    with pytest.raises(type(error)), device.memory_for("8 images", where="here", instead="take 4"):
        raise error


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_training_that_diverges_is_stopped(value: float) -> None:
    device.require_finite(1e300, "the loss", epoch=0, step=0, lr=0.1)
    with pytest.raises(
        UserError, match=rf"^lr: the loss is {value} at epoch 3, step 1; a lower lr than 0\.1 may help$"
    ):
        device.require_finite(value, "the loss", epoch=2, step=0, lr=0.1, where="lr")
