"""docs/reliability.md names only tests, settings and pages that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/reliability.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("named", re.findall(r"tests/[\w/]+\.py(?:::\w+)?", PAGE))
def test_the_tests_it_names_exist(named: str) -> None:
    file, _, test = named.partition("::")
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assert not test or test in functions


def test_each_promise_names_its_tests() -> None:
    promises = PAGE.split("## Promises\n")[1].split("\n## ")[0]
    for promise in re.split(r"^(?=\*\*)", promises, flags=re.MULTILINE)[1:]:
        assert "\n- tests/" in promise, promise.splitlines()[0]


def test_the_counts_are_those_of_the_campaigns() -> None:
    from tests.campaign.conftest import FAULTS, GOOD

    assert set(re.findall(r"^\| ([\w, ]+) \|", PAGE, re.MULTILINE)) >= {*GOOD, "different", "stuck", "tracebacks"}
    assert all(count in PAGE for count in FAULTS)


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)#]+)\)", PAGE))
def test_links_lead_somewhere(target: str) -> None:
    assert (ROOT / "docs" / target).exists()
