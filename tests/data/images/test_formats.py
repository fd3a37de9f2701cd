"""What a file is goes by its first bytes, and by its name or tags where it is a TIFF: read, or called by its name."""

from __future__ import annotations

import io
import struct
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin, features

from ltrec.data.images import decoding, formats, jpeg
from ltrec.data.images.decoding import decode_rgb, image_size
from ltrec.data.images.formats import UnreadableImageError, UnsupportedFormatError
from tests.hostile import changed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HEIC = "HEIC photographs: pip install ltrec[heic], or convert them to JPEG"


def gradient(width: int = 60, height: int = 40) -> Image.Image:
    """Red grows to the right, green downwards."""
    across, down = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([across, down, np.full_like(across, 90)], axis=2).astype(np.uint8))


def heic(image: Image.Image, **options: Any) -> bytes:
    """The bytes of a HEIC file."""
    plugin, content = pytest.importorskip("pillow_heif"), io.BytesIO()
    plugin.from_pillow(image).save(content, quality=90, **options)
    return content.getvalue()


def container(brand: bytes, *others: bytes) -> bytes:
    """The beginning of a file of the family of HEIC, AVIF and MP4, and nothing that could be decoded."""
    return struct.pack(">I4s4sI", 16 + 4 * len(others), b"ftyp", brand, 0) + b"".join(others) + bytes(400)


@pytest.fixture
def no_plugin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """pillow-heif is not installed."""
    formats._reads_heic.cache_clear()
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    yield
    formats._reads_heic.cache_clear()


def reason(file: Path) -> str:
    with pytest.raises(UnreadableImageError) as caught:
        decode_rgb(file)
    return str(caught.value)


@pytest.mark.parametrize("name", ["photo.HEIC", "photo.jpg"])
def test_heic_is_read_where_pillow_heif_is_installed_whatever_it_is_called(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(heic(gradient()))
    pixels = np.asarray(decode_rgb(tmp_path / name))
    assert np.abs(pixels.astype(int) - np.asarray(gradient())).max() < 12
    assert image_size(tmp_path / name) == (60, 40)


@pytest.mark.parametrize("decode_part", [decoding.decode_part, jpeg.decode_part])
def test_heic_is_the_same_in_training_and_prediction(decode_part: Any, tmp_path: Path) -> None:
    (tmp_path / "a.heic").write_bytes(heic(gradient(640, 480)))
    part = decode_part(tmp_path / "a.heic", lambda width, height: (0, 0, width, height), 20)
    assert np.array_equal(part, np.asarray(decode_rgb(tmp_path / "a.heic")))


def test_heic_comes_upright_and_over_white(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "turned.heic").write_bytes(heic(gradient(), exif=exif.tobytes()))
    assert decode_rgb(tmp_path / "turned.heic").size == (40, 60)
    clear = gradient().convert("RGBA")
    clear.putalpha(0)
    (tmp_path / "clear.heic").write_bytes(heic(clear))
    assert np.asarray(decode_rgb(tmp_path / "clear.heic")).min() == 255


@pytest.mark.parametrize("brand", [b"heic", b"heix", b"hevc", b"mif1", b"msf1"])
@pytest.mark.usefixtures("no_plugin")
def test_without_pillow_heif_it_is_named_with_the_remedy(brand: bytes, tmp_path: Path) -> None:
    (tmp_path / "IMG_0.HEIC").write_bytes(container(brand, b"mif1", b"heic"))
    with pytest.raises(UnsupportedFormatError) as caught:
        decode_rgb(tmp_path / "IMG_0.HEIC")
    assert str(caught.value) == HEIC


def test_what_only_begins_as_heic_is_damaged(tmp_path: Path) -> None:
    pytest.importorskip("pillow_heif")
    (tmp_path / "a.heic").write_bytes(container(b"heic", b"mif1", b"heic"))
    assert reason(tmp_path / "a.heic") == "damaged (it begins as a HEIC photograph)"


def test_a_heic_file_is_not_read_into_memory_whatever_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.heic").write_bytes(heic(gradient()))
    monkeypatch.setattr(formats, "MOST_FILE", 100)
    assert "a HEIC file of more than" in reason(tmp_path / "a.heic")


def test_heic_files_with_changed_bytes_never_crash(tmp_path: Path) -> None:
    whole, outcomes = heic(gradient()), set()
    for seed in range(150):
        (tmp_path / "a.heic").write_bytes(changed(whole, seed) if seed % 3 else whole[: seed * 4 + 20])
        try:
            decode_rgb(tmp_path / "a.heic")
            outcomes.add("decoded")
        except UnreadableImageError as error:
            outcomes.add(str(error).partition(" (")[0])
    assert {"decoded", "damaged"} <= outcomes


def test_avif_is_read_also_where_a_general_brand_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gradient().save(tmp_path / "a.avif")
    content = (tmp_path / "a.avif").read_bytes()
    (tmp_path / "a.avif").write_bytes(content[:8] + b"mif1" + content[12:])
    assert decode_rgb(tmp_path / "a.avif").size == (60, 40)
    monkeypatch.setattr(features, "check", lambda _name: False)
    assert reason(tmp_path / "a.avif").startswith("AVIF photographs: install a Pillow that reads AVIF")


def tiff(file: Path, **tags: Any) -> None:
    """A small image with tags, as in front of a raw photograph; `t` and a number is a tag's name."""
    info = TiffImagePlugin.ImageFileDirectory_v2()
    for name, value in tags.items():
        info[int(name[1:])] = value
    gradient().save(file, "TIFF", tiffinfo=info)


@pytest.mark.parametrize("suffix", ["NEF", "dng", "arw", "PEF"])
def test_the_thumbnail_in_a_raw_photograph_is_never_taken_for_it(suffix: str, tmp_path: Path) -> None:
    tiff(tmp_path / f"a.{suffix}")
    assert reason(tmp_path / f"a.{suffix}") == f"RAW photographs ({suffix.upper()}): develop them to JPEG"


@pytest.mark.parametrize(
    ("tags", "name"),
    [
        ({"t50706": b"\1\4\0\0"}, "DNG"),
        ({"t254": 1, "t330": 8}, "a TIFF file of a camera"),
    ],
)
def test_a_raw_photograph_of_another_name_is_told_by_its_tags(tags: Any, name: str, tmp_path: Path) -> None:
    tiff(tmp_path / "renamed.tif", **tags)
    assert reason(tmp_path / "renamed.tif") == f"RAW photographs ({name}): develop them to JPEG"


def test_the_colours_of_a_sensor_are_no_photograph(tmp_path: Path) -> None:
    tiff(tmp_path / "a.tif")
    content = (tmp_path / "a.tif").read_bytes()
    interpretation = struct.pack("<HHIHH", 262, 3, 1, 2, 0)
    assert content.count(interpretation) == 1
    (tmp_path / "a.tif").write_bytes(content.replace(interpretation, struct.pack("<HHIHH", 262, 3, 1, 32803, 0)))
    assert reason(tmp_path / "a.tif").startswith("RAW photographs")


def test_ordinary_tiff_files_and_jpegs_of_a_raw_name_are_read(tmp_path: Path) -> None:
    tiff(tmp_path / "page.tif", t254=0)
    tiff(tmp_path / "small.tif", t254=1)
    gradient().save(tmp_path / "really.nef", "JPEG")
    for name in ("page.tif", "small.tif", "really.nef"):
        assert decode_rgb(tmp_path / name).size == (60, 40)


@pytest.mark.parametrize(
    ("beginning", "words"),
    [
        (b"II*\0\x10\0\0\0CR\2\0", "RAW photographs (CR2)"),
        (container(b"crx "), "RAW photographs (CR3)"),
        (b"FUJIFILMCCD-RAW 0201", "RAW photographs (RAF)"),
        (b"IIRO\x08\0\0\0", "RAW photographs (ORF)"),
        (b"IIU\0\x18\0\0\0", "RAW photographs (RW2)"),
        (b"\xff\x0a\0\0", "JPEG XL photographs: convert them to JPEG"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL photographs: convert them to JPEG"),
        (container(b"qt  "), "videos: save single frames as JPEG"),
        (container(b"isom", b"mp41"), "videos: save single frames as JPEG"),
    ],
)
def test_other_files_of_cameras_are_called_what_they_are(beginning: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(beginning + bytes(100))
    assert reason(tmp_path / "a.jpg").startswith(words)


@pytest.mark.parametrize(
    "content", [container(b"xyzw"), b"ftyp", b"\0\0\0\x18ftyp", b"II*\0", b"MM\0*\xff\xff\xff\xff"]
)
def test_what_only_looks_like_one_is_no_image(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    assert reason(tmp_path / "a.jpg") == "not an image"
