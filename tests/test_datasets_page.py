"""docs/datasets.md: its examples are valid, and each source has one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from ltrec.config import params
from ltrec.data.sources import SourceSettings

PAGE = (Path(__file__).parents[1] / "docs" / "datasets.md").read_text(encoding="utf-8")
KINDS = {
    kind
    for member in get_args(get_args(SourceSettings)[0])
    for kind in get_args(member.model_fields["kind"].annotation)
}
EXAMPLES = {re.findall(r"kind: (\w+)", text)[0]: text for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)}


@pytest.mark.parametrize("kind", sorted(KINDS & EXAMPLES.keys()))
def test_the_examples_are_valid(kind: str) -> None:
    others = "represent: {backbone: {name: resnet50}}\nrebalance: {joint: {method: joint}}\n"
    assert params.parse(EXAMPLES[kind] + others).prepare.source.kind == kind


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_each_source_is_there(kind: str) -> None:
    assert f"kind: {kind}" in PAGE or f"`{kind}`" in PAGE
