"""Pairs of images side by side on one page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont, ImageOps

from ltrec import artifacts
from ltrec.console import printable
from ltrec.data.images.decoding import decode_rgb
from ltrec.data.images.formats import UnreadableImageError
from ltrec.errors import shortened

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    # An image's file, its title and its path as it is shown.
    Captioned = tuple[Path, str, str]

_SIDE, _GAP, _LINE = 160, 16, 15  # pixels
_PAIRS_A_ROW = 3
_LONGEST = 24  # characters that fit under a picture
_EMPTY = "#dddddd"


def draw_pairs(pairs: Sequence[Sequence[Captioned]], file: Path, *, truncated: Collection[Path] = ()) -> None:
    """Write a PNG of pairs of images, each over its title and its path; one that cannot be read is an empty square.

    Of the images in `truncated` the end may be missing.
    """
    across, down = 2 * _SIDE + 2 * _GAP, _SIDE + 2 * _LINE + _GAP
    columns = min(len(pairs), _PAIRS_A_ROW)
    page = Image.new("RGB", (columns * across + _GAP, -(-len(pairs) // columns) * down + _GAP), "white")
    for number, pair in enumerate(pairs):
        left, top = _GAP + number % columns * across, _GAP + number // columns * down
        for side, captioned in enumerate(pair):
            tile = _tile(captioned[0], truncated=captioned[0] in truncated)
            _paste(page, left + side * (_SIDE + 2), top, tile, *captioned[1:])
    with artifacts.replacing(file) as temporary:
        page.save(temporary, "PNG")


def _paste(page: Image.Image, left: int, top: int, tile: Image.Image, title: str, path: str) -> None:
    page.paste(tile, (left + (_SIDE - tile.width) // 2, top + (_SIDE - tile.height) // 2))
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(size=11)
    for number, line in enumerate((shortened(printable(title), _LONGEST), _end_of(printable(path)))):
        draw.text((left, top + _SIDE + 2 + number * _LINE), line, fill="black", font=font)


def _tile(path: Path, *, truncated: bool) -> Image.Image:
    try:
        image = decode_rgb(path, truncated=truncated)
    except UnreadableImageError:
        return Image.new("RGB", (_SIDE, _SIDE), _EMPTY)
    smooth = max(image.size) > _SIDE
    return ImageOps.contain(image, (_SIDE, _SIDE), Image.Resampling.LANCZOS if smooth else Image.Resampling.NEAREST)


def _end_of(text: str) -> str:
    """Return as much of a text as fits; of a path its end tells more."""
    return text if len(text) <= _LONGEST else f"…{text[1 - _LONGEST :]}"
