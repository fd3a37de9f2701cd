"""Every file is read once, in threads, and comes out in its order."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from ltrec.data import inspection
from ltrec.data.inspection import inspect

if TYPE_CHECKING:
    from pathlib import Path


def test_digests_and_reasons_keep_the_order_of_files(tmp_path: Path) -> None:
    paths = [f"{n}.png" for n in range(50)]
    for n, path in enumerate(paths):
        Image.new("L", (4, 4), n).save(tmp_path / path)
    for n in (3, 17, 40):
        (tmp_path / paths[n]).write_text("no image")
    steps: list[int] = []
    found = inspect(tmp_path, paths, workers=3, advance=steps.append)
    digests, skipped = found.digests, found.skipped
    assert list(digests) == [path for n, path in enumerate(paths) if n not in {3, 17, 40}]
    assert digests["5.png"] == hashlib.sha256((tmp_path / "5.png").read_bytes()).digest()
    assert [(skip.path, skip.reason) for skip in skipped] == [(paths[n], "not an image") for n in (3, 17, 40)]
    assert sum(steps) == 50


def test_missing_files_are_listed_with_the_others(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    found = inspect(tmp_path, ["gone.png", "text.png"], workers=None, advance=lambda _n=1: None)
    assert found.digests == {}
    assert [(skip.path, skip.reason) for skip in found.skipped] == [
        ("gone.png", "cannot be read (No such file or directory)"),
        ("text.png", "not an image"),
    ]


def test_an_interruption_begins_no_more_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def look(file: Path, _keep: bool) -> tuple[bytes, None]:
        seen.append(file.name)
        if len(seen) == 20:
            raise KeyboardInterrupt
        return b"", None

    monkeypatch.setattr(inspection, "_look", look)
    with pytest.raises(KeyboardInterrupt):
        inspect(tmp_path, [str(n) for n in range(10_000)], workers=1, advance=lambda _n=1: None)
    assert len(seen) < 10_000
