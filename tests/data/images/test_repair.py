"""PNG files with much text keep their pixels; of truncated files that is taken which is there."""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image, ImageFile, PngImagePlugin

from ltrec.data.images import cache, decoding, jpeg, repair
from ltrec.data.images.decoding import decode_rgb, image_size
from ltrec.data.images.formats import TruncatedImageError, UnreadableImageError
from tests.data.images import profiles

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def noise(height: int = 80, width: int = 120, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def with_chunks(file: Path, *chunks: bytes, behind: bool) -> None:
    """Put chunks before or behind the pixels of a PNG file."""
    content = file.read_bytes()
    place = content.index(b"IEND") - 4 if behind else content.index(b"IDAT") - 4
    file.write_bytes(content[:place] + b"".join(chunks) + content[place:])


def whole(width: int, height: int) -> tuple[int, int, int, int]:
    return 0, 0, width, height


ZTXT = chunk(b"zTXt", b"prompt\0\0" + zlib.compress(bytes(3 << 20)))
ITXT = chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(bytes(3 << 20)))
MANY = [chunk(b"zTXt", b"%d\0\0" % n + zlib.compress(b"x" * (1 << 20))) for n in range(66)]
PROFILE = chunk(b"iCCP", b"icc\0\0" + zlib.compress(bytes(3 << 20)))


@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize("chunks", [[ZTXT], [ITXT], MANY, [PROFILE]])
def test_a_png_keeps_its_pixels_where_pillow_refuses_its_text(
    chunks: list[bytes], behind: bool, tmp_path: Path
) -> None:
    file = tmp_path / "a.png"
    noise().save(file)
    with_chunks(file, *chunks, behind=behind)
    with pytest.raises(ValueError, match="MAX_TEXT"), Image.open(file) as opened:
        opened.load()
    assert np.array_equal(decode_rgb(file), noise())
    assert image_size(file) == (120, 80)
    assert np.array_equal(jpeg.decode_part(file, whole, 8), noise())


def test_what_pillow_does_unpack_is_kept_beside(tmp_path: Path) -> None:
    file, exif = tmp_path / "a.png", Image.Exif()
    exif[0x0112] = 6
    icc = profiles.of_primaries(profiles.DISPLAY_P3, profiles.srgb_curve())
    noise().save(file, exif=exif, icc_profile=icc)
    wanted = decode_rgb(file)
    with_chunks(file, ZTXT, behind=False)
    assert wanted.size == (80, 120)
    assert np.array_equal(decode_rgb(file), wanted)
    assert not np.array_equal(wanted, noise().transpose(Image.Transpose.ROTATE_270))


def test_there_is_an_end_to_what_is_read_beside_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise().save(tmp_path / "a.png")
    with_chunks(tmp_path / "a.png", ZTXT, behind=True)
    monkeypatch.setattr(repair, "MOST_FILE", 1000)
    with pytest.raises(UnreadableImageError, match="with much text, and more than"):
        decode_rgb(tmp_path / "a.png")


def cut(root: Path, name: str, share: float = 0.5, **options: Any) -> Path:
    """The beginning of an image file."""
    file = root / name
    noise().save(file, **options)
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    return file


CUT = [
    ("a.jpg", {"quality": 95, "subsampling": 0}),
    ("a.jpg", {"quality": 95, "progressive": True}),
    ("a.png", {}),
    ("a.bmp", {}),
    ("a.ppm", {}),
    ("a.tif", {}),
]


@pytest.mark.parametrize(("name", "options"), CUT)
def test_of_a_truncated_file_that_is_taken_which_is_there(name: str, options: Any, tmp_path: Path) -> None:
    file = cut(tmp_path, name, **options)
    with pytest.raises(TruncatedImageError, match=r"^truncated$"):
        decode_rgb(file)
    pixels: NDArray[np.uint8] = np.asarray(decode_rgb(file, truncated=True))
    assert pixels.shape == (80, 120, 3)
    assert np.array_equal(np.asarray(decode_rgb(file, truncated=True)), pixels), "each time alike"
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False
    if not options.get("progressive"):
        there, missing = (slice(50, 80), slice(8)) if name == "a.bmp" else (slice(30), slice(72, 80))
        assert np.abs(pixels[there].astype(int) - np.asarray(noise())[there]).mean() < 12
        assert pixels[missing, 1:].std(axis=(0, 1)).max() < 1, "what is missing has one colour"
        assert 60 < pixels[missing].mean() < 190, "and that is gray"
    part = jpeg.decode_part(file, whole, 200, truncated=True)
    assert np.array_equal(part, decoding.decode_part(file, whole, 200, truncated=True))
    assert np.array_equal(part, pixels)


def test_the_end_may_be_missing_of_a_palette_and_an_upright_one(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode_rgb(cut(tmp_path, "a.jpg", exif=exif), truncated=True).size == (80, 120)
    file = tmp_path / "p.png"
    noise().convert("P").save(file)
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    pixels = np.asarray(decode_rgb(file, truncated=True))
    assert pixels[:20].std() > 40
    with pytest.raises(TruncatedImageError):
        jpeg.decode_part(file, whole, 8)
    assert np.array_equal(jpeg.decode_part(file, whole, 8, truncated=True), pixels)


@pytest.mark.parametrize(("name", "share"), [("a.jpg", 0.02), ("a.png", 0.004), ("a.webp", 0.5), ("a.jp2", 0.5)])
def test_where_nothing_is_to_be_seen_it_is_refused_as_ever(name: str, share: float, tmp_path: Path) -> None:
    file = cut(tmp_path, name, share)
    with pytest.raises(UnreadableImageError) as strict:
        decode_rgb(file)
    with pytest.raises(UnreadableImageError) as kept:
        decode_rgb(file, truncated=True)
    assert str(kept.value) == str(strict.value)


def test_a_whole_file_is_the_same_with_the_permission(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.png", "a.webp", "a.gif"):
        noise().save(tmp_path / name)
        assert np.array_equal(decode_rgb(tmp_path / name), decode_rgb(tmp_path / name, truncated=True)), name


def test_a_truncated_jpeg_is_not_read_into_memory_whatever_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repair, "MOST_FILE", 1000)
    with pytest.raises(UnreadableImageError, match="truncated, and more than"):
        decode_rgb(cut(tmp_path, "a.jpg"), truncated=True)


def test_copies_are_made_of_what_is_there(tmp_path: Path) -> None:
    cut(tmp_path, "a.jpg")
    digest = hashlib.sha256((tmp_path / "a.jpg").read_bytes())
    settings = cache.CacheSettings(short_side=20)
    text = cache.cache_text(settings, tmp_path, ["a.jpg"], {"a.jpg": digest.digest()})
    (tmp_path / "train.cache.txt").write_text(text)
    (tmp_path / "stats.json").write_text(json.dumps({"truncated": ["a.jpg"]}))
    files = cache.training_files(tmp_path / "train.cache.txt", tmp_path, ["a.jpg"], folder=tmp_path / "cache")
    with Image.open(files[0]) as copy:
        assert min(copy.size) == 20


def test_pillow_refuses_text_of_more_than_a_mebibyte_as_the_docs_say() -> None:
    assert PngImagePlugin.MAX_TEXT_CHUNK == 1 << 20
