"""Where things are computed, and that it repeats."""

from __future__ import annotations

import pytest
import torch

from ltrec import device
from ltrec.errors import UserError


@pytest.mark.parametrize(("available", "expected"), [(False, "cpu"), (True, "cuda")])
def test_auto_is_the_gpu_if_there_is_one(monkeypatch: pytest.MonkeyPatch, available: bool, expected: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    assert device.resolve("auto").type == expected
    assert device.resolve("cpu").type == "cpu"


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
