"""Ordinary JPEGs by simplejpeg, everything else by Pillow: the same pixels."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from ltrec.data.images import decoding, jpeg
from ltrec.data.images.formats import UnreadableImageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    Crop = Callable[[int, int], tuple[int, int, int, int]]

SIZE = 16


def photo(width: int = 61, height: int = 47, mode: str = "RGB") -> Image.Image:
    """Smooth colours with some noise."""
    random = np.random.default_rng(width)
    coarse = Image.fromarray(random.integers(0, 256, (5, 6, 3)).astype(np.uint8)).resize((width, height))
    noise = random.normal(scale=4, size=(height, width, 3))
    return Image.fromarray((np.asarray(coarse) + noise).clip(0, 255).astype(np.uint8)).convert(mode)


def most(width: int, height: int) -> tuple[int, int, int, int]:
    """All but a border, which differs by side."""
    return 3, 2, width - 5, height - 1


def written(file: Path, image: Image.Image, **options: Any) -> Path:
    image.save(file, "JPEG", **options)
    return file


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[NDArray[np.uint8]]:
    """What simplejpeg has decoded."""
    done: list[NDArray[np.uint8]] = []
    real = pytest.importorskip("simplejpeg").decode_jpeg

    def decode_jpeg(*given: Any, **named: Any) -> NDArray[np.uint8]:
        done.append(real(*given, **named))
        return done[-1]

    monkeypatch.setattr(jpeg.simplejpeg, "decode_jpeg", decode_jpeg)
    return done


def both(file: Path, choose: Crop = most) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    return jpeg.decode_part(file, choose, SIZE), decoding.decode_part(file, choose, SIZE)


def near(ours: NDArray[np.uint8], pillows: NDArray[np.uint8]) -> bool:
    """Decoders may round a pixel otherwise; with the same version of libjpeg-turbo they do not."""
    return ours.shape == pillows.shape and int(np.abs(ours.astype(int) - pillows).max()) <= 2


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("quality", [30, 90])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("size", [(61, 47), (47, 61), (16, 16), (17, 16)])
def test_the_pixels_are_pillows(
    subsampling: int,
    quality: int,
    progressive: bool,
    size: tuple[int, int],
    tmp_path: Path,
    decoded: list[NDArray[np.uint8]],
) -> None:
    options = {"subsampling": subsampling, "quality": quality, "progressive": progressive}
    ours, pillows = both(written(tmp_path / "x.jpg", photo(*size), **options))
    assert len(decoded) == 1
    assert near(ours, pillows)
    assert ours.flags.c_contiguous
    assert ours.flags.writeable, "PyTorch wants memory that can be written to"


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


@pytest.mark.parametrize(
    ("mode", "options"), [("L", {}), ("CMYK", {}), ("RGB", {"exif": turned()}), ("RGB", {"keep_rgb": True})]
)
def test_what_is_not_ordinary_is_decoded_alike(mode: str, options: dict[str, Any], tmp_path: Path) -> None:
    ours, pillows = both(written(tmp_path / "x.jpg", photo(mode=mode), **options))
    assert near(ours, pillows)


def test_a_large_one_is_decoded_at_a_lower_resolution(tmp_path: Path, decoded: list[NDArray[np.uint8]]) -> None:
    ours, pillows = both(written(tmp_path / "x.jpg", photo(200, 150)))
    assert ours.shape[0] < 140
    assert np.array_equal(ours, pillows)
    assert not decoded
    ours, pillows = both(tmp_path / "x.jpg", lambda *_: (10, 20, 60, 80))
    assert ours.shape == (60, 50, 3)
    assert near(ours, pillows)
    assert len(decoded) == 1


def test_other_formats_whatever_their_name(tmp_path: Path, decoded: list[NDArray[np.uint8]]) -> None:
    photo().save(tmp_path / "png.jpg", "PNG")
    photo().save(tmp_path / "two.jpg", "MPO", save_all=True, append_images=[photo(30, 30)])
    np.save(tmp_path / "copy.npy", np.asarray(photo()))
    for name in ("png.jpg", "two.jpg", "copy.npy"):
        ours, pillows = both(tmp_path / name)
        assert np.array_equal(ours, pillows), name
    assert not decoded


def reason(decode: Callable[..., object], file: Path) -> str | None:
    try:
        decode(file, most, SIZE)
    except UnreadableImageError as error:
        return str(error)
    return None


def test_damaged_ones_are_what_pillow_says_of_them(tmp_path: Path) -> None:
    content = io.BytesIO()
    photo().save(content, "JPEG")
    whole, file, random = content.getvalue(), tmp_path / "x.jpg", np.random.default_rng(0)
    damaged = [whole[:length] for length in range(0, len(whole), 37)]
    for _ in range(200):
        other = bytearray(whole)
        for place in random.integers(2, len(whole), 3):
            other[place] = random.integers(256)
        damaged.append(bytes(other))
    read = 0
    for bytes_ in damaged:
        file.write_bytes(bytes_)
        said = reason(decoding.decode_part, file)
        assert reason(jpeg.decode_part, file) == said
        if said is None:
            read += 1
            assert near(*both(file))
    assert 10 < read < len(damaged) - 10, "both are tested"


def test_what_is_not_there_or_too_thin_is_refused_as_ever(tmp_path: Path) -> None:
    written(tmp_path / "thin.jpg", photo(1000, 10))
    for name, words in (("none.jpg", "cannot be read"), ("thin.jpg", "too thin")):
        with pytest.raises(UnreadableImageError, match=words):
            jpeg.decode_part(tmp_path / name, most, SIZE)


def test_without_simplejpeg_pillow_does_it_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jpeg, "simplejpeg", None)
    ours, pillows = both(written(tmp_path / "x.jpg", photo()))
    assert np.array_equal(ours, pillows)
