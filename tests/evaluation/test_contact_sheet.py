"""The page of pairs: every picture whole, in its place, with what stands under it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from PIL import Image

from ltrec.evaluation.contact_sheet import draw_pairs

if TYPE_CHECKING:
    from pathlib import Path

LONG = "a/" + "very-" * 60 + "long\n\u202ename.png"


def colors(page: Image.Image, box: tuple[int, int, int, int]) -> set[tuple[int, ...]]:
    return {color for _, color in page.crop(box).getcolors(1 << 20)}


@pytest.mark.parametrize("size", [(8, 8), (800, 400), (1, 40)])
def test_pictures_of_any_size_stand_side_by_side(tmp_path: Path, size: tuple[int, int]) -> None:
    for name in ("red", "blue"):
        Image.new("RGB", size, name).save(tmp_path / f"{name}.png")
    pair = [(tmp_path / f"{name}.png", f"1. train: {name}", LONG) for name in ("red", "blue")]
    draw_pairs([pair] * 4, tmp_path / "page.png")
    with Image.open(tmp_path / "page.png") as page:
        assert page.width < 1100  # three pairs a row, the fourth below
        half = 16 + 160 + 1
        for top in (0, page.height // 2):
            assert (255, 0, 0) in colors(page, (0, top, half, top + 180))
            assert (0, 0, 255) not in colors(page, (0, top, half, top + 180))
            assert (0, 0, 255) in colors(page, (half, top, half + 160, top + 180))
        assert colors(page, (16, 178, half, 206)) - {(255, 255, 255)}, "the lines under the first picture"
        assert colors(page, (16, 206, half, 208)) == {(255, 255, 255)}, "nothing runs into the next row"


def test_what_cannot_be_read_is_an_empty_square(tmp_path: Path) -> None:
    (tmp_path / "damaged.png").write_bytes(b"no image")
    draw_pairs([[(tmp_path / name, "1. val", name) for name in ("damaged.png", "missing.png")]], tmp_path / "page.png")
    with Image.open(tmp_path / "page.png") as page:
        assert colors(page, (20, 20, 170, 170)) == colors(page, (190, 20, 330, 170)) == {(221, 221, 221)}
