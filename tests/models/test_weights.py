"""Weights that others wrote: what is read, what is refused, and every key that does not fit."""

from __future__ import annotations

import copy
import functools
import os
import pickle
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ltrec.errors import UserError
from ltrec.models.weights import load_exactly, read_state_dict, strip_prefix

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TENSORS = {"conv1.weight": torch.arange(6.0).reshape(2, 3), "bn1.bias": torch.ones(2)}
PARALLEL = {f"module.{name}": tensor for name, tensor in TENSORS.items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(tensor, second[name]) for name, tensor in first.items())


@pytest.mark.parametrize("content", [TENSORS, PARALLEL, {"state_dict": PARALLEL, "epoch": 3}, {"model": TENSORS}])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_pytorch_file_alone_or_wrapped(content: Any, tmp_path: Path, zipped: bool) -> None:
    torch.save(content, tmp_path / "weights.pth", _use_new_zipfile_serialization=zipped)
    assert same(read_state_dict(tmp_path / "weights.pth"), TENSORS)


@pytest.mark.parametrize("content", [TENSORS, PARALLEL])
def test_a_safetensors_file(content: dict[str, torch.Tensor], tmp_path: Path) -> None:
    save_file(content, tmp_path / "weights.safetensors")
    assert same(read_state_dict(tmp_path / "weights.safetensors"), TENSORS)


def test_of_a_network_of_ours_the_backbone(tmp_path: Path) -> None:
    save_file(
        {f"backbone.{name}": tensor for name, tensor in TENSORS.items()} | {"head.weight": torch.ones(3, 2)},
        tmp_path / "model.safetensors",
    )
    assert same(read_state_dict(tmp_path / "model.safetensors"), TENSORS)


def test_a_prefix_goes_only_when_all_carry_it() -> None:
    assert list(strip_prefix(PARALLEL)) == list(TENSORS)
    mixed = PARALLEL | {"fc.weight": torch.ones(1)}
    assert strip_prefix(mixed) == mixed


class Hostile:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch run",)


def truncated(path: Path) -> None:
    torch.save(TENSORS, path)
    path.write_bytes(path.read_bytes()[:-100])


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "hostile": (
        lambda path: torch.save({"state_dict": TENSORS, "more": Hostile()}, path),
        r"refused before any code of it ran: it names posix\.system; only tensors, .* are read",
    ),
    "hostile, as PyTorch 1.5 wrote it": (
        lambda path: torch.save({"more": Hostile()}, path, _use_new_zipfile_serialization=False),
        r"refused before any code of it ran: it names posix\.system",
    ),
    "hostile, not of PyTorch": (
        lambda path: path.write_bytes(pickle.dumps(Hostile())),
        r"damaged or not a checkpoint that torch\.save wrote",
    ),
    "truncated": (truncated, r"damaged or not a checkpoint that torch\.save wrote"),
    "empty": (lambda path: path.touch(), r"damaged or not a checkpoint that torch\.save wrote"),
    "text": (lambda path: path.write_text("no weights"), r"damaged or not a checkpoint that torch\.save wrote"),
    "a tensor": (lambda path: torch.save(torch.ones(2), path), r"no state dict: its content is Tensor"),
    "lists in lists, 10^12 in all": (
        lambda path: torch.save(functools.reduce(lambda inner, _: [inner] * 10, range(12), [0]), path),
        r"no state dict: its content is list, \[\[\[",
    ),
    "nothing": (lambda path: torch.save({}, path), r"no state dict: its content is dict, \{\}"),
    "no tensors": (
        lambda path: torch.save({"encoder": TENSORS, "epoch": 3, "fc.bias": torch.ones(1)}, path),
        r"no state dict: encoder, epoch hold no tensor; allowed: names and tensors, alone or under state_dict or",
    ),
    "published": (
        lambda path: torch.save({"state_dict_best": {"feat_model": TENSORS, "classifier": {}}, "epoch": 3}, path),
        r"is a checkpoint of the research code, .*: `ltrec checkpoint import` takes it over",
    ),
    "published, the latest": (
        lambda path: torch.save({"state_dict": {"feat_model": TENSORS, "classifier": {}}, "epoch": 3}, path),
        r"is a checkpoint of the research code, .*: `ltrec checkpoint import` takes it over",
    ),
}


@pytest.mark.parametrize("how", BAD)
def test_what_is_no_weights_is_refused_in_one_line(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write, message = BAD[how]
    write(tmp_path / "weights.pth")
    with pytest.raises(UserError, match=rf"weights\.pth: {message}") as raised:
        read_state_dict(tmp_path / "weights.pth")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "run").exists(), "no code of the file has run"


def test_a_damaged_safetensors_file_and_none_at_all(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    with pytest.raises(UserError, match=r"weights\.safetensors: no such file"):
        read_state_dict(file)
    save_file(TENSORS, file)
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(UserError, match=r"weights\.safetensors: damaged or not a safetensors file"):
        read_state_dict(file)


def body() -> nn.Module:
    """Named as a ResNet's are."""
    block = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    return nn.ModuleDict(
        {"conv1": nn.Linear(3, 2), "bn1": nn.BatchNorm1d(2), "layer1": block, "layer2": nn.Linear(2, 2)}
    )


def test_what_fits_is_loaded() -> None:
    given, module = body().state_dict(), body()
    load_exactly(module, given | {"fc.weight": torch.ones(5), "fc.bias": torch.ones(5)}, "here", ["fc."])
    assert same(module.state_dict(), given)


def test_batch_norms_counters_may_be_missing() -> None:
    module = body()
    given = {name: tensor for name, tensor in body().state_dict().items() if "num_batches" not in name}
    module.bn1.num_batches_tracked.fill_(7)  # type: ignore[operator, union-attr]
    load_exactly(module, given, "here")
    assert int(module.state_dict()["bn1.num_batches_tracked"]) == 0


def test_everything_that_does_not_fit_is_named_and_nothing_loaded() -> None:
    module, given = body(), body().state_dict()
    before = copy.deepcopy(module.state_dict())
    for name in ("layer1.1.weight", "layer1.1.bias", "bn1.weight"):
        del given[name]
    given |= {"conv1.weight": torch.ones(2, 4), "layer3.0.a": torch.ones(1), "layer3.1.b": torch.ones(1)}
    given |= {"fc.weight": torch.ones(1)}
    with pytest.raises(UserError) as raised:
        load_exactly(module, given, "weights.pth", ["linear."])
    assert str(raised.value) == (
        "weights.pth: does not fit the network: 3 missing: bn1.weight, layer1.1.{weight,bias}; 3 unexpected:"
        " layer3.0.a, layer3.1.b, fc.weight; 1 of another shape: conv1.weight (2, 4) instead of (2, 3)"
    )
    assert same(module.state_dict(), before)
