"""Many names in few words, none lost and none added."""

from __future__ import annotations

import contextlib
import io
import re
import time
from itertools import product
from typing import TYPE_CHECKING

import pytest
import torch
from torchvision import models

from ltrec import console
from ltrec.models.tensor_mismatch import compact, tensor_mismatches

if TYPE_CHECKING:
    from collections.abc import Iterator


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
    assert ", ".join(compact(names.split())) == text
    assert expanded(text) == set(names.split())


@pytest.mark.parametrize(("given", "wanted"), [("resnet152", "resnet50"), ("resnet18", "resnet50")])
@pytest.mark.usefixtures("verbose")
def test_with_verbose_every_name_of_another_network_is_there(given: str, wanted: str) -> None:
    with torch.device("meta"):
        has, needs = (models.get_model(name).state_dict() for name in (given, wanted))
    said = told(has, needs)
    missing = {name for name in needs.keys() - has.keys() if not name.endswith("num_batches_tracked")}
    assert expanded(said.get("missing", "")) - {""} == missing
    assert expanded(said.get("unexpected", "")) - {""} == has.keys() - needs.keys()
    shaped = re.sub(r" \([\d, ]*\) instead of \([\d, ]*\)", "", said.get("of another shape", ""))
    differing = {name for name in has.keys() & needs.keys() if has[name].shape != needs[name].shape}
    assert expanded(shaped) - {""} == differing


def told(has: dict[str, torch.Tensor], needs: dict[str, torch.Tensor]) -> dict[str, str]:
    """Return what is said of each kind: in the line, or, where that is cut short, beside it."""
    with contextlib.redirect_stderr(io.StringIO()) as beside:
        line = tensor_mismatches(has, needs, "weights.pth")
    assert len(line) < 2500
    said = dict(re.findall(r"\d+ (missing|unexpected|of another shape): ([^;]*)", line))
    return said | dict(re.findall(r"^weights\.pth: ([a-z ]+): (.*)$", beside.getvalue(), re.MULTILINE))


@pytest.fixture
def verbose() -> Iterator[None]:
    console.set_verbosity(console.Verbosity.VERBOSE)
    yield
    console.set_verbosity(console.Verbosity.NORMAL)


@pytest.mark.parametrize("form", ["x{0}", "a{1}.b{0}.c{2}", "{0}.{0}.w", "very long " * 30 + "{0}"])
def test_of_a_hundred_thousand_odd_names_the_first_few_are_said(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    given = {form.format(number, number % 7, number % 13): torch.zeros(1) for number in range(100_000)}
    began = time.monotonic()
    line = tensor_mismatches(given, {}, "weights.pth")
    assert time.monotonic() - began < 20
    assert line.startswith("100,000 unexpected: ")
    assert line.endswith(" (--verbose lists them)")
    assert len(line) < 1200
    assert capsys.readouterr().err == ""


def test_what_is_counted() -> None:
    given = {"a.weight": torch.zeros(2), "a.extra": torch.zeros(1)}
    wanted = {"a.weight": torch.zeros(3), "a.bias": torch.zeros(3), "a.num_batches_tracked": torch.tensor(0)}
    assert tensor_mismatches(given, wanted, "here") == (
        "1 missing: a.bias; 1 unexpected: a.extra; 1 of another shape: a.weight (2,) instead of (3,)"
    )
    assert tensor_mismatches(wanted, wanted, "here") == ""
