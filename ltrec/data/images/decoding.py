"""Decoding image files to upright RGB arrays. It needs Pillow and NumPy only: serving uses it without torch.

Files may be hostile: `formats` has the list of decoders and opens nothing but regular files, `memory` bounds what an
image and all threads together take.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import ExifTags, Image, ImageOps

from ltrec.artifacts import irregular
from ltrec.data.images import repair
from ltrec.data.images.colours import to_rgb
from ltrec.data.images.formats import UnreadableImageError, open_image, unreadable
from ltrec.data.images.memory import memory_for
from ltrec.settings import PositiveInt, Settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

# Resized to a short side of 224, an image of 3 × 60,000 pixels would take gigabytes.
_THINNEST = 50
# The EXIF orientations that swap width and height.
_TURNED = (5, 6, 7, 8)

Box = tuple[int, int, int, int]
"""Left, top, right and bottom, in pixels."""

Interpolation = Literal["bilinear", "bicubic"]
CropMode = Literal["centre", "squash"]


class Geometry(Settings):
    """How an image becomes the evaluation square: it is resized, then a square of `size` is cut from its centre."""

    size: PositiveInt
    """Side of the square that the network sees, in pixels."""
    resize: PositiveInt
    """Length of the short side before the centre crop, of both sides with `squash`, in pixels; at least `size`."""
    interpolation: Interpolation = "bilinear"
    """How the resized pixels are computed, antialiased."""
    crop: CropMode = "centre"
    """centre: the image keeps its shape, and loses what is outside the square; squash: both its sides become equal."""


def decode_rgb(file: Path, *, truncated: bool = False) -> Image.Image:
    """Return a file of one of `formats.IMAGE_FORMATS`, or HEIC, in any Pillow mode, as an upright RGB image.

    EXIF orientation is applied; colours of an ICC profile become sRGB; transparency is laid over white; 16-bit, 32-bit
    and floating-point grayscale is scaled to 8 bits; of an animation the first frame is taken. `truncated` says that
    the end of the file may be missing: what is there is read, and the rest is grey.

    Raises:
        TruncatedImageError: the end of the file is missing; with `truncated`, so much of it that nothing is to be seen.
        UnsupportedFormatError: the file is a photograph of a kind that is not read.
        UnreadableImageError: the file is no image, or damaged, or one side is more than 50 times the other, or decoding
            it would take more than 2 GiB.
    """
    return _decode(file, truncated=truncated)


def require_decodable(file: Path, *, truncated: bool = False) -> None:
    """Decode a file as `decode_rgb` does, but for the colours of a profile, which take longer than a JPEG's pixels.

    Raises:
        UnreadableImageError: as in `decode_rgb`.
    """
    _decode(file, truncated=truncated, in_srgb=False)


def decode_part(
    file: Path, choose: Callable[[int, int], Box], size: int, *, truncated: bool = False
) -> NDArray[np.uint8]:
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
        if opened.format in {"JPEG", "MPO"} and shrink >= 2:
            opened.draft("RGB", (int(opened.width / shrink), int(opened.height / shrink)))

    def cut(image: Image.Image) -> Image.Image:
        assert box is not None, "planned before it is decoded"
        across, down = image.width / whole[0], image.height / whole[1]
        return image.crop((round(box[0] * across), round(box[1] * down), round(box[2] * across), round(box[3] * down)))

    return np.array(_decode(file, plan, cut, truncated=truncated))


def decode_square(file: Path, geometry: Geometry, *, truncated: bool = False) -> NDArray[np.uint8]:
    """Return the evaluation square of a file, uint8 (H, W, 3) with H = W = `geometry.size`.

    It is that of `decode_rgb`, but the colours of a profile become sRGB when an RGB image is small already: of twelve
    megapixels they would take nine times as long as the decoding.

    Raises:
        UnreadableImageError: as in `decode_rgb`.
    """
    is_square = False

    def cut(image: Image.Image) -> Image.Image:
        nonlocal is_square
        is_square = image.mode == "RGB" and not image.has_transparency_data
        if not is_square:
            return image
        small = Image.fromarray(square(image, geometry))
        small.info = image.info
        return small

    image = _decode(file, cut=cut, truncated=truncated)
    return np.asarray(image, dtype=np.uint8) if is_square else square(image, geometry)


def image_size(file: Path) -> tuple[int, int]:
    """Return the width and height of an image as it is stored; it is not decoded.

    Raises:
        UnreadableImageError: as in `decode_rgb`.
    """
    try:
        try:
            opened = open_image(file)
        except ValueError as error:
            if not repair.is_of_text(error, file):
                raise
            opened = repair.open_without_text(file)
    except Exception as error:  # noqa: BLE001 - on damaged files Pillow's decoders raise almost anything
        raise unreadable(error, file) from None
    with opened:
        return opened.size


def square(image: Image.Image, geometry: Geometry) -> NDArray[np.uint8]:
    """Return the evaluation square, uint8 (H, W, 3) with H = W = `geometry.size`.

    The short side is resized, or both are, then the centre is cropped: bit for bit torchvision's `Resize` and
    `CenterCrop` of a Pillow image.
    """
    short = min(image.size)
    squash = geometry.crop == "squash"
    width, height = (geometry.resize if squash else side * geometry.resize // short for side in image.size)
    left, top = (round((side - geometry.size) / 2) for side in (width, height))
    resized = image.resize((width, height), Image.Resampling[geometry.interpolation.upper()])
    return np.asarray(resized.crop((left, top, left + geometry.size, top + geometry.size)), dtype=np.uint8)


def _part_of_array(file: Path, choose: Callable[[int, int], Box]) -> NDArray[np.uint8]:
    if kind := irregular(file):
        raise UnreadableImageError(f"is {kind}, not a file")
    try:
        pixels: NDArray[np.uint8] = np.load(file)
        height, width, _ = pixels.shape
    except (OSError, ValueError) as error:
        raise unreadable(error, file) from None
    left, top, right, bottom = choose(width, height)
    return np.ascontiguousarray(pixels[top:bottom, left:right])  # else resizing takes three times as long


def _decode(
    file: Path,
    plan: Callable[[Image.Image], None] = lambda _opened: None,
    cut: Callable[[Image.Image], Image.Image] = lambda image: image,
    *,
    truncated: bool,
    in_srgb: bool = True,
) -> Image.Image:
    """Return a part of the upright image as RGB.

    Args:
        file: The file.
        plan: What is called with the image when it is open and not yet decoded.
        cut: Returns the part, of the whole upright image.
        truncated: Whether the end of the file may be missing.
        in_srgb: Whether the colours of a profile become sRGB.
    """
    # Pillow warns of odd metadata and very large images; a filter of one thread alone needs Python 3.14.
    warnings.filterwarnings("ignore", module=r"PIL\.")

    def finished(opened: Image.Image) -> Image.Image:
        with opened:
            if not truncated:
                plan(opened)
            with memory_for(opened):
                if truncated:
                    repair.load_truncated(opened, file)
                    plan(opened)
                opened.load()
                ImageOps.exif_transpose(opened, in_place=True)
                if max(opened.size) > _THINNEST * min(opened.size):
                    raise UnreadableImageError(f"too thin ({opened.width} × {opened.height} pixels)")
                return to_rgb(opened, cut, in_srgb=in_srgb)

    try:
        try:
            return finished(repair.open_truncated(file) if truncated else open_image(file))
        except ValueError as error:
            if not repair.is_of_text(error, file):
                raise
            return finished(repair.open_without_text(file))
    except Exception as error:  # noqa: BLE001 - on damaged files Pillow's decoders raise almost anything
        raise unreadable(error, file) from None
