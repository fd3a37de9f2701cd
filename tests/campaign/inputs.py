"""What hypothesis draws hostile and broken files from."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pillow_heif
from hypothesis import strategies as st
from PIL import Image

from tests.data.images import profiles

# What breaks readers, to be strewn into whatever they read.
WORDS = st.sampled_from([
    "!!int x", "!!float abc", "!!bool maybe", "!!timestamp 9", "!!binary aGk=", "!!set {a}", "!!null x", "!x y",
    "&a [*a]", "*x", "<<: *a", "<<: [1]", "%YAML 1.1\n---\n", "---\n", "#", ":", "?", "|", ">", "'", '"', "", " ",
    "9" * 5000, "-" + "9" * 5000, "0x" + "f" * 5000, "1e999", ".inf", ".nan", "-0", "1_0", "0o9", "9" * 20, "~",
    "null", "true", "-1", "1.5", "[" * 60, "{a: " * 60, "[" * 3000, "- " * 100, "x" * 5000,
    "\0", "\x1b[2J", "\x85", "\u2028", "\u202e", r'"\ud800"', "\ufeff", "\t", "\r", "\n", "é", "猫",
    "=1+1", "@x", "../x", "/x", "//", "C:\\x", "</script>",
])  # fmt: skip
TEXT = st.one_of(WORDS, st.text(max_size=12))
PATHS = st.sampled_from(["a.jpg", "b/c d.png", "train/é.webp"]) | TEXT
LABELS = st.sampled_from(["0", "1", "2", "9"]) | TEXT
SPLITS = st.sampled_from(["train", "val", "test"]) | TEXT
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), TEXT, st.sampled_from([2**63, -(2**63) - 1, 10**400, 1e308])
)
JSON: st.SearchStrategy[Any] = st.deferred(
    lambda: SCALARS | SCALARS | st.lists(JSON, max_size=3) | st.dictionaries(TEXT, JSON, max_size=3)
)


def spliced(text: str, places: list[tuple[float, float, str]]) -> str:
    """Return a text with stretches of it replaced: each begins at a share of it and has up to 100 signs."""
    for where, length, word in places:
        start = int(where * len(text))
        text = text[:start] + word + text[start + int(length * 100) :]
    return text


PLACES = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), TEXT), min_size=1, max_size=3)
FLIPS = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=6)


def flipped(data: bytes, flips: list[tuple[float, int]], cut: float) -> bytes:
    """Return bytes with some of them changed, and, in one case of ten, the end cut off."""
    changed = bytearray(data)
    for where, byte in flips:
        changed[int(where * len(data))] = byte
    return bytes(changed[: int(len(data) * cut * 10)] if cut < 0.1 else changed)


def _photographs() -> dict[str, bytes]:
    """Return a file of each kind, by its suffix, most with a profile and the colours of a photograph."""
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).resize((48, 36), Image.Resampling.BICUBIC)
    files, exif = {}, Image.Exif()
    exif[0x0112] = 6
    for suffix, name in (("jpg", "JPEG"), ("png", "PNG"), ("webp", "WEBP"), ("tif", "TIFF"), ("avif", "AVIF")):
        content = io.BytesIO()
        image.save(content, name, icc_profile=PROFILES["RGB"], exif=exif)
        files[suffix] = content.getvalue()
    for suffix, name in (("bmp", "BMP"), ("gif", "GIF"), ("jp2", "JPEG2000"), ("mpo", "MPO"), ("dng", "TIFF")):
        content = io.BytesIO()
        image.save(content, name)
        files[suffix] = content.getvalue()
    content = io.BytesIO()
    pillow_heif.from_pillow(image).save(content, quality=80, icc_profile=PROFILES["RGB"])
    return files | {"heic": content.getvalue(), "cr3": b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + bytes(50)}


PROFILES = {
    "RGB": profiles.of_primaries(profiles.DISPLAY_P3, profiles.gamma(2.2)),
    "CMYK": profiles.of_inks(),
}
PHOTOGRAPHS = _photographs()


def whole(width: int, height: int) -> tuple[int, int, int, int]:
    """Return the box of a whole image."""
    return 0, 0, width, height
