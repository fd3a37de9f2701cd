"""docs/splits.md: its examples are valid, and it names every way to group."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ltrec.config import params

PAGE = (Path(__file__).parents[1] / "docs" / "splits.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
OTHERS = "represent: {backbone: {name: resnet50}}\nrebalance: {joint: {method: joint}}\n"


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_examples_are_valid(example: str) -> None:
    params.parse(example + OTHERS)


@pytest.mark.parametrize("split", re.findall(r"^\| `(test: [^`]+)`", PAGE, re.MULTILINE))
def test_the_amounts_are_valid(split: str) -> None:
    params.parse(f"prepare: {{split: {{val: 1, {split}}}}}\n{OTHERS}")


def test_each_way_to_group_is_there() -> None:
    definitions = params.json_schema()["$defs"]
    for name in ("RegexGroups", "ColumnGroups", "BurstGroups"):
        assert f"{{by: {definitions[name]['properties']['by']['const']}, " in PAGE
