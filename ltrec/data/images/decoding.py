"""Decoding image files to upright RGB arrays. It needs Pillow and NumPy only: serving uses it without torch."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from ltrec.settings import PositiveInt, Settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

_LONGEST_REASON = 200
# Resized to a short side of 224, an image of 3 × 60,000 pixels would take gigabytes.
_THINNEST = 50
# The EXIF orientations that swap width and height.
_TURNED = (5, 6, 7, 8)

Box = tuple[int, int, int, int]
"""Left, top, right and bottom, in pixels."""

Interpolation = Literal["bilinear", "bicubic"]


class UnreadableImageError(Exception):
    """A file that is no image, or a damaged one; the message says why."""


class Geometry(Settings):
    """How an image becomes the evaluation square: short side to `resize`, then a centre crop of `size`."""

    size: PositiveInt
    """Side of the square that the network sees, in pixels."""
    resize: PositiveInt
    """Length of the short side before the centre crop, in pixels; at least `size`."""
    interpolation: Interpolation = "bilinear"
    """How the resized pixels are computed, antialiased."""


def decode_rgb(file: Path) -> Image.Image:
    """Return a file of any Pillow mode as an upright RGB image.

    EXIF orientation is applied; transparency is laid over white; 16-bit, 32-bit and floating-point
    grayscale is scaled to 8 bits; of an animation the first frame is taken.

    Raises:
        UnreadableImageError: the file is no image, or truncated, or one side is more than 50 times the other.
    """
    return _decode(file, lambda _opened: None)


def decode_part(file: Path, choose: Callable[[int, int], Box], size: int) -> NDArray[np.uint8]:
    """Return a part of an image, uint8 (h, w, 3), of which a square of `size` pixels will be made.

    The file is decoded like in `decode_rgb`, but a JPEG at a half, a quarter or an eighth of its resolution while that
    leaves the part twice `size`: photographs come in twelve megapixels, and most of the work would be decoding what is
    thrown away. An array of pixels (h, w, 3), `.npy`, is read as it is. `choose` returns the part for the width and
    the height of the upright image.

    Raises:
        UnreadableImageError: as in `decode_rgb`.
    """
    if file.suffix == ".npy":
        return _part_of_array(file, choose)
    box: Box | None = None
    whole = (0, 0)

    def plan(opened: Image.Image) -> None:
        nonlocal box, whole
        turned = opened.getexif().get(ExifTags.Base.Orientation, 1) in _TURNED
        whole = (opened.height, opened.width) if turned else opened.size
        box = choose(*whole)
        shrink = min(box[2] - box[0], box[3] - box[1]) / (2 * size)
        if opened.format == "JPEG" and shrink >= 2:
            opened.draft("RGB", (int(opened.width / shrink), int(opened.height / shrink)))

    image = _decode(file, plan)
    assert box is not None, "planned before it is decoded"
    across, down = image.width / whole[0], image.height / whole[1]
    part = image.crop((round(box[0] * across), round(box[1] * down), round(box[2] * across), round(box[3] * down)))
    return np.array(part)


def square(image: Image.Image, geometry: Geometry) -> NDArray[np.uint8]:
    """Return the evaluation square, uint8 (H, W, 3) with H = W = `geometry.size`.

    The short side is resized, then the centre is cropped: bit for bit torchvision's `Resize` and `CenterCrop` of a
    Pillow image.
    """
    short = min(image.size)
    width, height = (side * geometry.resize // short for side in image.size)
    left, top = (round((side - geometry.size) / 2) for side in (width, height))
    resized = image.resize((width, height), Image.Resampling[geometry.interpolation.upper()])
    return np.asarray(resized.crop((left, top, left + geometry.size, top + geometry.size)), dtype=np.uint8)


def _part_of_array(file: Path, choose: Callable[[int, int], Box]) -> NDArray[np.uint8]:
    try:
        pixels: NDArray[np.uint8] = np.load(file)
        height, width, _ = pixels.shape
    except (OSError, ValueError) as error:
        raise UnreadableImageError(_reason(error, file)) from None
    left, top, right, bottom = choose(width, height)
    return np.ascontiguousarray(pixels[top:bottom, left:right])  # else resizing takes three times as long


def _decode(file: Path, before: Callable[[Image.Image], None]) -> Image.Image:
    """Return the upright image; `before` is called with it when it is open and not yet decoded."""
    # Pillow warns of odd metadata and very large images; a filter of one thread alone needs Python 3.14.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        with Image.open(file) as opened:
            before(opened)
            opened.load()
            ImageOps.exif_transpose(opened, in_place=True)
            upright = _to_rgb(opened)
    except Exception as error:  # noqa: BLE001 - on damaged files Pillow's decoders raise almost anything
        raise UnreadableImageError(_reason(error, file)) from None
    if max(upright.size) > _THINNEST * min(upright.size):
        raise UnreadableImageError(f"too thin ({upright.width} × {upright.height} pixels)")
    return upright


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        return _gray(np.asarray(image, dtype=np.float64), white=65535)
    if image.mode in {"I", "F"}:
        values = np.nan_to_num(np.asarray(image, dtype=np.float64), posinf=0, neginf=0)
        return _gray(values, white=_white(image.mode, float(values.max())))
    if image.has_transparency_data:
        layered = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), layered).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _gray(values: NDArray[np.float64], white: float) -> Image.Image:
    """Return an image of values in 0 … `white` as RGB in 0 … 255."""
    return Image.fromarray(np.clip(values * (255 / white), 0, 255).round().astype(np.uint8)).convert("RGB")


def _white(mode: str, largest: float) -> float:
    """Return the value of white where the file does not say: the smallest of the usual ones that no value exceeds."""
    usual = (255, 65535) if mode == "I" else (1, 255, 65535)
    return next((white for white in usual if largest <= white), largest)


def _reason(error: Exception, file: Path) -> str:
    """Return why a file cannot be decoded, without its path."""
    text = str(error).partition("\n")[0][:_LONGEST_REASON]
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels"
    if isinstance(error, UnidentifiedImageError):
        return "not an image" if file.stat().st_size else "an empty file"
    if isinstance(error, OSError) and error.errno is not None:
        return f"cannot be read ({error.strerror})"
    if "truncated" in text.lower() or isinstance(error, EOFError):
        return "truncated"
    return f"damaged ({text or type(error).__name__})"
