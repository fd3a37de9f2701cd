"""Images of any Pillow mode and ICC profile as RGB in sRGB."""

from __future__ import annotations

import functools
import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray
    from PIL.ImageCms import ImageCmsTransform

# Pixels that are converted at a time.
_BAND = 1 << 20
# A profile of more bytes is taken for a damaged one; those of presses have one or two million.
_LARGEST_PROFILE = 4 << 20
# The colour spaces that profiles are for, by the modes that they apply to.
_SPACES = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK"}
_BASES = {"RGB": "RGB", "RGBA": "RGB", "P": "RGB", "PA": "RGB", "L": "L", "LA": "L", "CMYK": "CMYK"}
# Up to so many of 256 steps a profile's colours are those of sRGB, which has been written down in many ways.
_SAME = 2


def to_rgb(
    image: Image.Image, cut: Callable[[Image.Image], Image.Image] = lambda image: image, *, in_srgb: bool = True
) -> Image.Image:
    """Return a part of an image of any mode as RGB; what needs more than a byte a sample is made so in bands of rows.

    `cut` returns the part. `in_srgb` says whether the colours of an ICC profile become those of sRGB; a damaged
    profile, or one for another mode, is ignored.
    """
    if image.mode in {"I", "F"}:  # what is white depends on the whole image
        white = _white(image.mode, max(float(_values(band).max()) for _, band in _bands(image)))
        return _by_bands(cut(image), lambda band: _gray(band, white))
    image = cut(image)
    if image.mode.startswith("I;16"):
        return _by_bands(image, lambda band: _gray(band, white=65535))
    transform = srgb_transform(image) if in_srgb else None
    if image.has_transparency_data:
        return _by_bands(image, lambda band: _over_white(band, transform))
    if transform is not None:
        return _by_bands(image, lambda band: _in_srgb(band, transform))
    return image if image.mode == "RGB" else image.convert("RGB")


def srgb_transform(image: Image.Image) -> ImageCmsTransform | None:
    """Return what makes sRGB of an image's colours; None: they are taken as they are."""
    profile, base = image.info.get("icc_profile"), _BASES.get(image.mode)
    if base is None or not isinstance(profile, bytes) or not 0 < len(profile) <= _LARGEST_PROFILE:
        return None
    return _transform(profile, base)


@functools.lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> ImageCmsTransform | None:
    """Return what makes sRGB of the colours of a profile; None: nothing is to be done, or the profile is of no use."""
    from PIL import ImageCms

    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space.strip() != _SPACES[mode]:
            return None
        srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
        # Without its memory of the last pixel a transform may be used by several threads at once.
        transform = ImageCms.buildTransform(source, srgb, mode, "RGB", flags=ImageCms.Flags.NOCACHE)
        return transform if mode == "CMYK" or _changes(transform, mode) else None
    except Exception:  # noqa: BLE001 - LittleCMS says in many ways that a profile is damaged
        return None


def _changes(transform: ImageCmsTransform, mode: str) -> bool:
    """Return whether colours change, on a lattice of 17 values a channel."""
    steps = np.append(np.arange(0, 256, 16), 255).astype(np.uint8)
    values = steps[:, None] if mode == "L" else np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(-1, 1, 3)
    lattice = Image.fromarray(values)
    before, after = (
        np.asarray(each, dtype=np.int64) for each in (lattice.convert("RGB"), _in_srgb(lattice, transform))
    )
    return int(np.abs(after - before).max()) > _SAME


def _in_srgb(image: Image.Image, transform: ImageCmsTransform) -> Image.Image:
    from PIL import ImageCms

    if image.mode != transform.input_mode:
        image = image.convert(transform.input_mode)
    converted: Image.Image | None = ImageCms.applyTransform(image, transform)
    assert converted is not None, "only a transform in place returns nothing"
    return converted


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


def _over_white(image: Image.Image, transform: ImageCmsTransform | None) -> Image.Image:
    layered = image.convert("RGBA")
    if transform is not None:
        opacity = layered.getchannel("A")
        layered = _in_srgb(layered, transform)
        layered.putalpha(opacity)
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), layered).convert("RGB")


def _white(mode: str, largest: float) -> float:
    """Return the value of white where the file does not say: the smallest of the usual ones that no value exceeds."""
    usual = (255, 65535) if mode == "I" else (1, 255, 65535)
    return next((white for white in usual if largest <= white), largest)
