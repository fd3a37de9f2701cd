"""Vega on disk for `dvc plots show` without internet."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from ltrec.evaluation import vega

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.slow
def test_bundle_is_written_once_and_renewed(tmp_path: Path) -> None:
    file = tmp_path / ".ltrec" / "vega.js"
    vega.provide(file.parent)
    bundle = file.read_text(encoding="utf-8")
    assert "window.vegaEmbed" in bundle
    assert "</script" not in bundle
    written = file.stat().st_mtime_ns
    vega.provide(file.parent)
    assert file.stat().st_mtime_ns == written
    file.write_text("// of another version\n", encoding="utf-8")
    vega.provide(file.parent)
    assert file.read_text(encoding="utf-8") == bundle


def test_missing_converter_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    vega.provide(tmp_path)
    assert "will need internet" in capsys.readouterr().err
    assert not (tmp_path / "vega.js").exists()
