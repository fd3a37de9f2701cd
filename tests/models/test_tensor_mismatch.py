"""Many names in few words, none lost and none added."""

from __future__ import annotations

import re
from itertools import product

import pytest
import torch
from torchvision import models

from ltrec.models.tensor_mismatch import compact, tensor_mismatches


def expanded(text: str) -> set[str]:
    """The names again, alternative by alternative."""
    names = set()
    for word in re.split(r", ", text):
        places = []
        for part in re.findall(r"\{[^}]*\}|[^.{]+", word):
            if not part.startswith("{"):
                places.append([part])
                continue
            bounds = [
                piece.split("-") if re.fullmatch(r"\d+-\d+", piece) else [piece] for piece in part[1:-1].split(",")
            ]
            places.append([
                name for piece in bounds
                for name in (map(str, range(int(piece[0]), int(piece[1]) + 1)) if len(piece) == 2 else piece)
            ])  # fmt: skip
        names |= {".".join(choice) for choice in product(*places)}
    return names


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ("fc.weight", "fc.weight"),
        ("fc.weight fc.bias", "fc.{weight,bias}"),
        ("a.0.x a.1.x a.2.x a.4.x", "a.{0-2,4}.x"),
        ("a.0.x a.0.y a.1.x a.1.y", "a.{0-1}.{x,y}"),
        ("a.0.x a.0.y a.1.x", "a.0.{x,y}, a.1.x"),
        ("conv1.weight conv1 scales", "conv1.weight, {conv1,scales}"),
    ],
)
def test_names_drawn_together(names: str, text: str) -> None:
    assert compact(names.split()) == text
    assert expanded(text) == set(names.split())


@pytest.mark.parametrize(("given", "wanted"), [("resnet152", "resnet50"), ("resnet18", "resnet50")])
def test_every_name_of_another_network_is_there(given: str, wanted: str) -> None:
    with torch.device("meta"):
        has, needs = (models.get_model(name).state_dict() for name in (given, wanted))
    line = tensor_mismatches(has, needs)
    assert len(line) < 4000
    said = dict(re.findall(r"\d+ (missing|unexpected|of another shape): ([^;]*)", line))
    missing = {name for name in needs.keys() - has.keys() if not name.endswith("num_batches_tracked")}
    assert expanded(said.get("missing", "")) - {""} == missing
    assert expanded(said.get("unexpected", "")) - {""} == has.keys() - needs.keys()
    shaped = re.sub(r" \([\d, ]*\) instead of \([\d, ]*\)", "", said.get("of another shape", ""))
    differing = {name for name in has.keys() & needs.keys() if has[name].shape != needs[name].shape}
    assert expanded(shaped) - {""} == differing


def test_what_is_counted() -> None:
    given = {"a.weight": torch.zeros(2), "a.extra": torch.zeros(1)}
    wanted = {"a.weight": torch.zeros(3), "a.bias": torch.zeros(3), "a.num_batches_tracked": torch.tensor(0)}
    assert tensor_mismatches(given, wanted) == (
        "1 missing: a.bias; 1 unexpected: a.extra; 1 of another shape: a.weight (2,) instead of (3,)"
    )
    assert tensor_mismatches(wanted, wanted) == ""
