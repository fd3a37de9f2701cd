"""docs/performance.md shows what the committed results say."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

ROOT = Path(__file__).parents[1]


def test_the_tables_are_those_of_the_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import tables  # type: ignore[import-not-found]

    page = tables.PAGE.read_text(encoding="utf-8")
    assert tables.rendered(page) == page, "run `python benchmarks/tables.py`"
    assert page.count("| --- |") == 7
    sys.modules.pop("tables")
