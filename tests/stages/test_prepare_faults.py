"""Photographs of phones and cameras, and truncated ones, from the folder to the lists and what is said of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from ltrec.config.prepare import PrepareSettings
from ltrec.data.image_lists import read_classes
from ltrec.data.images import formats
from ltrec.errors import UserError
from tests.stages.test_prepare import prepare, write_images

if TYPE_CHECKING:
    from pathlib import Path

    from ltrec.artifacts import Layout


def phone_photographs(folder: Path, count: int, *, damaged: bool) -> None:
    """HEIC files, or the beginnings of some, in a folder of their own."""
    folder.mkdir(parents=True, exist_ok=True)
    for n in range(count):
        if damaged:
            (folder / f"IMG_{n}.HEIC").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(400))
        else:
            colour = Image.new("RGB", (32, 24), (n, 90, 200))
            pytest.importorskip("pillow_heif").from_pillow(colour).save(folder / f"IMG_{n}.HEIC")


def test_phone_photographs_are_a_class_like_any_other(root: Path, layout: Layout) -> None:
    phone_photographs(root / "a", 6, damaged=False)
    write_images(root, b=8)
    stats = prepare(root, layout)
    assert (read_classes(layout.classes), stats["skipped"]) == (("a", "b"), [])
    assert sum(stats["images"].values()) == 14


def test_where_they_cannot_be_read_it_is_one_line_a_kind_and_no_empty_class(
    root: Path, layout: Layout, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    phone_photographs(root / "a", 6, damaged=True)
    write_images(root, b=8, c=8)
    (root / "c" / "x.CR3").write_bytes(b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + bytes(100))
    Image.new("RGB", (16, 12)).save(root / "c" / "x.NEF", "TIFF")
    monkeypatch.setattr(formats, "_reads_heic", lambda: False)
    skipped = {skip["path"]: skip["reason"] for skip in prepare(root, layout)["skipped"]}
    kind = "HEIC photographs: pip install ltrec[heic], or convert them to JPEG"
    assert skipped["a/IMG_3.HEIC"] == kind
    assert skipped["a/"] == "none of its 6 file(s) can be read (HEIC photographs)"
    assert read_classes(layout.classes) == ("b", "c")
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: prepare: skipped")]
    assert [line.partition(": skipped ")[2][:2] for line in lines] == ["1:", "6 ", "1 ", "1 "]
    assert "6 (a/IMG_0.HEIC, a/IMG_1.HEIC, a/IMG_2.HEIC and 3 more): HEIC photographs: pip install" in lines[1]
    assert "`dvc repro --force prepare`" in lines[1]
    assert {line.partition("RAW photographs (")[2][:3] for line in lines[2:]} == {"CR3", "NEF"}


def test_nothing_but_such_files_is_an_error_that_names_the_kind_once(
    root: Path, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    phone_photographs(root / "a", 6, damaged=True)
    phone_photographs(root / "b", 6, damaged=True)
    monkeypatch.setattr(formats, "_reads_heic", lambda: False)
    with pytest.raises(UserError, match=r"no image could be read \(12 HEIC photographs: pip install [^;]*JPEG\)$"):
        prepare(root, layout)


@pytest.mark.parametrize("truncated", ["skip", "keep"])
def test_truncated_images_are_left_out_or_kept_as_the_parameters_say(
    truncated: str, root: Path, layout: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(root, a=6, b=6)
    for name in ("a", "b"):
        pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / name / "cut.jpg")
        content = (root / name / "cut.jpg").read_bytes()
        (root / name / "cut.jpg").write_bytes(content[: len(content) // 2 + len(name)])
    (root / "a" / "gone.jpg").write_bytes(content[:200])  # before its first pixel
    stats = prepare(root, layout, truncated=truncated)
    said = capsys.readouterr().err
    skipped = {skip["path"]: skip["reason"] for skip in stats["skipped"]}
    assert skipped["a/gone.jpg"] == "truncated"
    assert len(skipped) == (1 if truncated == "keep" else 3)
    assert sum(stats["images"].values()) == (14 if truncated == "keep" else 12)
    assert stats.get("truncated") == (["a/cut.jpg", "b/cut.jpg"] if truncated == "keep" else None)
    assert ("2 truncated image(s) are kept" in said) == (truncated == "keep")


def test_keeping_truncated_images_needs_their_content() -> None:
    with pytest.raises(ValueError, match="decode must be true"):
        PrepareSettings.model_validate({"truncated": "keep", "decode": False})
