"""Decoding image files to upright RGB arrays. It needs Pillow and NumPy only: serving uses it without torch.

Files may be hostile. `IMAGE_FORMATS` is the list of decoders; nothing but a regular file is opened; an image that would
take more than 2 GiB to decode is refused, and all that a process decodes at once, in however many threads, takes 4 GiB.
"""

from __future__ import annotations

import contextlib
import os
import threading
import warnings
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from ltrec.artifacts import irregular
from ltrec.settings import PositiveInt, Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF", "JPEG2000")
"""The formats that are read, whatever a file is called, by Pillow's names; MPO is a JPEG. Pillow knows forty more, some
of which start other programs (EPS: Ghostscript), and none of which holds photographs."""

_LONGEST_REASON = 200
# Bytes that Pillow needs for a pixel while it decodes, rounded up from measurements; they are many where a library
# gives the whole image before Pillow copies it. 12 for each of the 179 million pixels that Pillow takes are 2 GiB.
_BYTES_A_PIXEL = {"WEBP": 20, "AVIF": 16, "JPEG2000": 24}
_BYTES_OF_OTHERS = 12
_MOST_BYTES = 2 << 30  # of one image
_MOST_AT_ONCE = 4 << 30  # of all threads of a process
# Resized to a short side of 224, an image of 3 × 60,000 pixels would take gigabytes.
_THINNEST = 50
# Pixels that are converted at a time.
_BAND = 1 << 20
# The EXIF orientations that swap width and height.
_TURNED = (5, 6, 7, 8)

Box = tuple[int, int, int, int]
"""Left, top, right and bottom, in pixels."""

Interpolation = Literal["bilinear", "bicubic"]
CropMode = Literal["centre", "squash"]


class UnreadableImageError(Exception):
    """A file that is no image, or a damaged one; the message says why."""


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


def decode_rgb(file: Path) -> Image.Image:
    """Return a file of one of `IMAGE_FORMATS`, in any Pillow mode, as an upright RGB image.

    EXIF orientation is applied; transparency is laid over white; 16-bit, 32-bit and floating-point
    grayscale is scaled to 8 bits; of an animation the first frame is taken.

    Raises:
        UnreadableImageError: the file is no image of `IMAGE_FORMATS`, or truncated, or one side is more than 50 times
            the other, or decoding it would take more than 2 GiB.
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
        raise UnreadableImageError(_reason(error, file)) from None
    left, top, right, bottom = choose(width, height)
    return np.ascontiguousarray(pixels[top:bottom, left:right])  # else resizing takes three times as long


def open_image(file: Path) -> Image.Image:
    """Return an image that is open and not yet decoded, by one of `IMAGE_FORMATS`.

    Raises:
        UnreadableImageError: it is no regular file, which might be waited for in vain.
        OSError: the file cannot be read, or is of none of the formats.
    """
    if kind := irregular(file):
        raise UnreadableImageError(f"is {kind}, not a file")
    return Image.open(file, formats=IMAGE_FORMATS)


def _decode(file: Path, before: Callable[[Image.Image], None]) -> Image.Image:
    """Return the upright image; `before` is called with it when it is open and not yet decoded."""
    # Pillow warns of odd metadata and very large images; a filter of one thread alone needs Python 3.14.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        with open_image(file) as opened:
            before(opened)
            with _memory_for(opened):
                opened.load()
                ImageOps.exif_transpose(opened, in_place=True)
                upright = _to_rgb(opened)
    except UnreadableImageError:
        raise
    except Exception as error:  # noqa: BLE001 - on damaged files Pillow's decoders raise almost anything
        raise UnreadableImageError(_reason(error, file)) from None
    if max(upright.size) > _THINNEST * min(upright.size):
        raise UnreadableImageError(f"too thin ({upright.width} × {upright.height} pixels)")
    return upright


class _Memory:
    """The bytes that decoding threads may still take; who wants more waits for others to be done."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._free = _MOST_AT_ONCE

    @contextlib.contextmanager
    def take(self, amount: int) -> Iterator[None]:
        with self._condition:
            self._condition.wait_for(lambda: self._free >= amount)
            self._free -= amount
        try:
            yield
        finally:
            with self._condition:
                self._free += amount
                self._condition.notify_all()


_memory = _Memory()


def _renew_memory() -> None:
    """Begin anew in a worker process: threads that held some of the memory stayed behind in its parent."""
    global _memory  # noqa: PLW0603 - one for a process
    _memory = _Memory()


os.register_at_fork(after_in_child=_renew_memory)


def _memory_for(opened: Image.Image) -> contextlib.AbstractContextManager[None]:
    """Return what holds the memory for decoding an image.

    Raises:
        UnreadableImageError: it would take too much.
    """
    pixels, each = opened.width * opened.height, _BYTES_A_PIXEL.get(opened.format or "", _BYTES_OF_OTHERS)
    if pixels * each > _MOST_BYTES:
        raise UnreadableImageError(
            f"would take {pixels * each / 1e9:.1f} GB to decode ({pixels:,} pixels of {each} bytes each);"
            f" allowed: {_MOST_BYTES / 1e9:.1f} GB a thread"
        )
    return _memory.take(pixels * each)


def _to_rgb(image: Image.Image) -> Image.Image:
    """Return an image of any mode as RGB; what needs more than a byte a sample is made so some rows at a time."""
    if image.mode.startswith("I;16"):
        return _by_bands(image, lambda band: _gray(band, white=65535))
    if image.mode in {"I", "F"}:
        white = _white(image.mode, max(float(_values(band).max()) for _, band in _bands(image)))
        return _by_bands(image, lambda band: _gray(band, white))
    if image.has_transparency_data:
        return _by_bands(image, _over_white)
    return image if image.mode == "RGB" else image.convert("RGB")


def _by_bands(image: Image.Image, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """Return an RGB image whose bands `convert` makes of the image's, so that nothing large lies beside the two."""
    whole = Image.new("RGB", image.size)
    for top, band in _bands(image):
        whole.paste(convert(band), (0, top))
    return whole


def _bands(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Yield an image some rows at a time, each band with the number of its first row."""
    rows = max(1, _BAND // image.width)
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _values(image: Image.Image) -> NDArray[np.float64]:
    return np.nan_to_num(np.asarray(image, dtype=np.float64), posinf=0, neginf=0)


def _gray(image: Image.Image, white: float) -> Image.Image:
    """Return an image of values in 0 … `white` as RGB in 0 … 255."""
    return Image.fromarray(np.clip(_values(image) * (255 / white), 0, 255).round().astype(np.uint8)).convert("RGB")


def _over_white(image: Image.Image) -> Image.Image:
    layered = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), layered).convert("RGB")


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
