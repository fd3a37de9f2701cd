"""Where things are computed, and that it repeats."""

from __future__ import annotations

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


@pytest.mark.usefixtures("restored_torch")
def test_the_seed_repeats() -> None:
    device.make_deterministic(3)
    first = torch.rand(4)
    device.make_deterministic(3)
    assert torch.equal(torch.rand(4), first)
    assert torch.are_deterministic_algorithms_enabled()
    device.make_deterministic(4)
    assert not torch.equal(torch.rand(4), first)


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


def test_out_of_memory_is_one_line() -> None:
    with (
        pytest.raises(UserError, match=r"^here: 8 images need more memory than the GPU has; take 4 \(Tried 1 GiB\)$"),
        device.memory_for("8 images", where="here", instead="take 4"),
    ):
        raise torch.OutOfMemoryError("Tried\n 1 GiB")
    with pytest.raises(RuntimeError, match="bug"), device.memory_for("8 images", where="here", instead="take 4"):
        raise RuntimeError("bug")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_training_that_diverges_is_stopped(value: float) -> None:
    device.require_finite(1e300, "the loss", epoch=0, step=0, lr=0.1)
    with pytest.raises(
        UserError, match=rf"^lr: the loss is {value} at epoch 3, step 1; a lower lr than 0\.1 may help$"
    ):
        device.require_finite(value, "the loss", epoch=2, step=0, lr=0.1, where="lr")
