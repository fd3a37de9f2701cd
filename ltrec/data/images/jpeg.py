"""Ordinary JPEGs for training crops by simplejpeg, where it is installed (`pip install ltrec[fast]`).

It is the same decoder as Pillow's, libjpeg-turbo, without Pillow's copies between its layouts of pixels.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
from PIL import ExifTags, Image

from ltrec.artifacts import irregular
from ltrec.data.images import colours, decoding

try:
    import simplejpeg
except ImportError:
    simplejpeg = None

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from ltrec.data.images.decoding import Box

_BEGINNING = b"\xff\xd8\xff"
# Of anything thinner it is for Pillow's way to say whether it is an image to train on.
_THIN = 10


def decode_part(
    file: Path, choose: Callable[[int, int], Box], size: int, *, truncated: bool = False
) -> NDArray[np.uint8]:
    """Return the part of an image that `decoding.decode_part` returns.

    Raises:
        UnreadableImageError: as in `decoding.decode_rgb`.
    """
    pixels = None if truncated or simplejpeg is None or irregular(file) else _part_of_jpeg(file, choose, size)
    return decoding.decode_part(file, choose, size, truncated=truncated) if pixels is None else pixels


def _part_of_jpeg(file: Path, choose: Callable[[int, int], Box], size: int) -> NDArray[np.uint8] | None:
    """Return the part; None where Pillow is to decode.

    That is what is no upright JPEG in the colours of sRGB, is damaged, or is so large that it is decoded at a lower
    resolution.
    """
    # As in `decoding`: Pillow warns of odd metadata.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        with file.open("rb") as opened:
            if opened.read(len(_BEGINNING)) != _BEGINNING:
                return None
            opened.seek(0)
            with Image.open(opened, formats=["JPEG"]) as image:
                width, height = image.size
                kind = image.format, image.mode, image.getexif().get(ExifTags.Base.Orientation, 1)
                is_srgb = colours.srgb_transform(image) is None
            if not is_srgb or kind != ("JPEG", "RGB", 1) or max(width, height) > _THIN * min(width, height):
                return None
            left, top, right, bottom = choose(width, height)
            if min(right - left, bottom - top) >= 4 * size:
                return None
            opened.seek(0)
            pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(opened.read(), "RGB")
    except Exception:  # noqa: BLE001 - Pillow says what it is, or reads it all the same
        return None
    return np.ascontiguousarray(pixels[top:bottom, left:right])  # else resizing takes three times as long
