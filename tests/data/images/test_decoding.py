"""Files of every kind become upright RGB, or say why not."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import InterpolationMode, v2

from ltrec.data.images import decoding
from ltrec.data.images.decoding import (
    IMAGE_FORMATS,
    Geometry,
    Interpolation,
    UnreadableImageError,
    decode_part,
    decode_rgb,
    open_image,
    square,
)

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def decode(path: Path) -> Any:
    """uint8 (H, W, 3)."""
    image = decode_rgb(path)
    assert image.mode == "RGB"
    return np.asarray(image)


def red_above_blue() -> Image.Image:
    """4 wide, 6 high."""
    image = Image.new("RGB", (4, 6), BLUE)
    image.paste(RED, (0, 0, 4, 3))
    return image


def test_grayscale_of_8_and_1_bits(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 127, 255]], dtype=np.uint8)).save(tmp_path / "l.png")
    assert decode(tmp_path / "l.png").tolist() == [[[0] * 3, [127] * 3, [255] * 3]]
    Image.new("1", (2, 1), 1).save(tmp_path / "1.png")
    assert decode(tmp_path / "1.png").tolist() == [[[255] * 3, [255] * 3]]


def test_16_bit_grayscale_is_scaled_not_clipped(tmp_path: Path) -> None:
    # 257 of the 65,536 steps are one of the 256.
    Image.fromarray(np.array([[0, 257 * 100, 65535]], dtype=np.uint16)).save(tmp_path / "wide.png")
    assert decode(tmp_path / "wide.png")[0, :, 0].tolist() == [0, 100, 255]
    Image.fromarray(np.array([[0, 257 * 100, 65535]], dtype=np.uint16)).save(tmp_path / "wide.tif")
    assert decode(tmp_path / "wide.tif")[0, :, 2].tolist() == [0, 100, 255]


@pytest.mark.parametrize(
    ("dtype", "values", "expected"),
    [
        (np.int32, [0, 100, 255], [0, 100, 255]),
        (np.int32, [0, 257 * 100, 65535], [0, 100, 255]),
        (np.int32, [0, 1_000_000, 2_000_000], [0, 128, 255]),
        (np.float32, [0, 0.5, 1], [0, 128, 255]),
        (np.float32, [-3, 100, 255], [0, 100, 255]),
        (np.float32, [0, 257 * 100, 65535], [0, 100, 255]),
        (np.float32, [np.nan, np.inf, 1], [0, 0, 255]),
    ],
)
def test_other_grayscale_comes_in_the_range_that_its_values_fit(
    tmp_path: Path, dtype: type, values: list[float], expected: list[int]
) -> None:
    Image.fromarray(np.array([values], dtype=dtype)).save(tmp_path / "gray.tif")
    assert decode(tmp_path / "gray.tif")[0, :, 0].tolist() == expected


def test_a_hair_is_no_image(tmp_path: Path) -> None:
    Image.new("L", (2, 101)).save(tmp_path / "hair.png")
    with pytest.raises(UnreadableImageError, match=r"^too thin \(2 × 101 pixels\)$"):
        decode_rgb(tmp_path / "hair.png")
    Image.new("L", (100, 2)).save(tmp_path / "thin.png")
    assert decode(tmp_path / "thin.png").shape == (2, 100, 3)


def test_palette_with_and_without_transparency(tmp_path: Path) -> None:
    palette = red_above_blue().convert("P", palette=Image.Palette.ADAPTIVE, colors=2)
    palette.save(tmp_path / "p.png")
    pixels = decode(tmp_path / "p.png")
    assert (tuple(pixels[0, 0]), tuple(pixels[5, 0])) == (RED, BLUE)
    red = palette.getpixel((0, 0))
    assert isinstance(red, int)
    palette.save(tmp_path / "clear.png", transparency=red)
    pixels = decode(tmp_path / "clear.png")
    assert (tuple(pixels[0, 0]), tuple(pixels[5, 0])) == (WHITE, BLUE)
    palette.save(tmp_path / "bytes.png", transparency=bytes([0 if index == red else 255 for index in range(2)]))
    pixels = decode(tmp_path / "bytes.png")
    assert (tuple(pixels[0, 0]), tuple(pixels[5, 0])) == (WHITE, BLUE)


def test_transparency_lies_over_white(tmp_path: Path) -> None:
    Image.fromarray(np.array([[[255, 0, 0, 255], [255, 0, 0, 0]]], dtype=np.uint8), "RGBA").save(tmp_path / "a.png")
    assert decode(tmp_path / "a.png").tolist() == [[list(RED), list(WHITE)]]
    Image.fromarray(np.array([[[10, 255], [10, 0]]], dtype=np.uint8), "LA").save(tmp_path / "la.png")
    assert decode(tmp_path / "la.png").tolist() == [[[10] * 3, [255] * 3]]


def test_cmyk_jpeg(tmp_path: Path) -> None:
    # No cyan, full magenta and yellow: red.
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "c.jpg", quality=100)
    assert np.abs(decode(tmp_path / "c.jpg").astype(int) - RED).max() <= 3


@pytest.mark.parametrize(
    ("orientation", "stored"),
    [
        (1, lambda image: image),
        (2, lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
        (3, lambda image: image.transpose(Image.Transpose.ROTATE_180)),
        (6, lambda image: image.transpose(Image.Transpose.ROTATE_90)),  # shown rotated by 270° against the clock
        (8, lambda image: image.transpose(Image.Transpose.ROTATE_270)),
    ],
)
def test_exif_rotation_comes_out_upright(tmp_path: Path, orientation: int, stored: Any) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored(red_above_blue()).save(tmp_path / "rotated.png", exif=exif)
    assert decode(tmp_path / "rotated.png").tolist() == np.asarray(red_above_blue()).tolist()


def test_of_an_animation_the_first_frame_is_taken(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, BLUE)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    assert tuple(decode(tmp_path / "moving.gif")[0, 0]) == RED


def test_what_cannot_be_decoded_says_why(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    for name in ("whole.jpg", "whole.png"):
        image.save(tmp_path / name)
        content = (tmp_path / name).read_bytes()
        (tmp_path / name.replace("whole", "half")).write_bytes(content[: len(content) // 2])
    (tmp_path / "text.jpg").write_text("not a picture")
    (tmp_path / "empty.jpg").touch()
    reasons = {}
    for name in ("half.jpg", "half.png", "text.jpg", "empty.jpg", "missing.jpg", ""):
        with pytest.raises(UnreadableImageError) as caught:
            decode_rgb(tmp_path / name)
        reasons[name] = str(caught.value)
    assert reasons == {
        "half.jpg": "truncated",
        "half.png": "truncated",
        "text.jpg": "not an image",
        "empty.jpg": "an empty file",
        "missing.jpg": "cannot be read (No such file or directory)",
        "": "is a folder, not a file",
    }


def test_damaged_bytes_never_crash(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))
    outcomes: set[str] = set()
    for suffix in ("png", "jpg", "gif", "bmp", "tif", "webp", "avif", "jp2", "ppm"):
        image.save(tmp_path / f"whole.{suffix}")
        whole = np.frombuffer((tmp_path / f"whole.{suffix}").read_bytes(), dtype=np.uint8)
        for _ in range(20):
            damaged = whole.copy()
            places = rng.integers(0, len(damaged), 8) // rng.integers(1, 20)
            damaged[places] = rng.integers(0, 256, 8)
            (tmp_path / f"damaged.{suffix}").write_bytes(damaged.tobytes())
            try:
                decode_rgb(tmp_path / f"damaged.{suffix}")
                outcomes.add("decoded")
            except UnreadableImageError as error:
                outcomes.add(str(error).partition("(")[0].strip())
    assert {"decoded", "not an image", "truncated"} <= outcomes
    assert outcomes <= {"decoded", "not an image", "truncated", "damaged", "too thin", "more than 178,956,970 pixels"}


def test_bombs_are_refused_and_large_images_do_not_warn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (20, 10)).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 150)  # Pillow warns above it, and refuses above twice that
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode(tmp_path / "large.png").shape == (10, 20, 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 90)
    with pytest.raises(UnreadableImageError, match="more than 180 pixels"):
        decode_rgb(tmp_path / "large.png")


@pytest.mark.parametrize("suffix", ["eps", "pdf", "pcx", "tga", "ico", "sgi", "msp"])
def test_formats_that_hold_no_photographs_are_not_decoded_whatever_they_are_called(suffix: str, tmp_path: Path) -> None:
    Image.new("1" if suffix == "msp" else "RGB", (16, 16)).save(tmp_path / f"image.{suffix}")
    (tmp_path / f"image.{suffix}").rename(tmp_path / "image.png")
    with pytest.raises(UnreadableImageError, match=r"^not an image$"):
        decode_rgb(tmp_path / "image.png")


def test_no_program_is_started_for_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "image.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n%%EndComments\nshowpage\n"
    )
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a program is started"))
    for read in (decode_rgb, open_image):
        with pytest.raises((UnreadableImageError, OSError)):
            read(tmp_path / "image.png")


@pytest.mark.parametrize("image_format", IMAGE_FORMATS)
def test_every_format_of_the_list_is_read_whatever_it_is_called(image_format: str, tmp_path: Path) -> None:
    red_above_blue().resize((40, 60)).save(tmp_path / "image", image_format)
    assert decode(tmp_path / "image").shape == (60, 40, 3)


@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("name", ["pipe.jpg", "pipe.npy"])
def test_a_named_pipe_is_refused_and_not_waited_for(name: str, linked: bool, tmp_path: Path) -> None:
    pipe = tmp_path / ("there" if linked else name)
    os.mkfifo(pipe)
    if linked:
        (tmp_path / name).symlink_to(pipe)
    with pytest.raises(UnreadableImageError, match="is a named pipe, not a file"):
        decode_part(tmp_path / name, lambda *_: (0, 0, 1, 1), 1)


def test_a_device_and_a_socket_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImageError, match="is a device, not a file"):
        decode_rgb(Path("/dev/zero"))
    with socket.socket(socket.AF_UNIX) as bound, contextlib.chdir(tmp_path):
        bound.bind("image.png")
        with pytest.raises(UnreadableImageError, match="is a socket, not a file"):
            decode_rgb(Path("image.png"))


def test_what_would_take_gigabytes_is_refused_with_the_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    red_above_blue().resize((100, 100)).save(tmp_path / "a.webp")
    red_above_blue().resize((100, 100)).save(tmp_path / "a.png")
    monkeypatch.setattr(decoding, "_MOST_BYTES", 150_000)
    decode_rgb(tmp_path / "a.png")
    with pytest.raises(
        UnreadableImageError, match=r"to decode \(10,000 pixels of 20 bytes each\); allowed: .* GB a thr"
    ):
        decode_rgb(tmp_path / "a.webp")


def test_threads_wait_for_each_other_where_memory_would_not_suffice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    red_above_blue().resize((100, 100)).save(tmp_path / "a.png")
    monkeypatch.setattr(decoding, "_MOST_AT_ONCE", 250_000)  # two of them
    monkeypatch.setattr(decoding, "_memory", decoding._Memory())
    at_once, most, to_rgb = [0], [0], decoding._to_rgb

    def slowly(image: Image.Image) -> Image.Image:
        at_once[0] += 1
        most[0] = max(most[0], at_once[0])
        time.sleep(0.02)
        at_once[0] -= 1
        return to_rgb(image)

    monkeypatch.setattr(decoding, "_to_rgb", slowly)
    with ThreadPoolExecutor(8) as pool:
        assert len(list(pool.map(decode_rgb, [tmp_path / "a.png"] * 16))) == 16
    assert most == [2]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["16-bit", "transparent", "photograph"])
def test_the_largest_images_take_no_more_memory_than_is_said(kind: str, tmp_path: Path) -> None:
    width, height = (10_000, 10_000) if kind == "photograph" else (13_000, 13_700)
    mode = {"16-bit": "I;16", "transparent": "LA", "photograph": "RGB"}[kind]
    Image.new(mode, (width, height)).save(tmp_path / "a.png", compress_level=1)
    code = (
        "import resource, sys; from pathlib import Path; from ltrec.data.images.decoding import decode_rgb\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print(decode_rgb(Path(sys.argv[1])).size); print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    size, kilobytes = subprocess.check_output([sys.executable, "-c", code, tmp_path / "a.png"], text=True).splitlines()
    assert size == str((width, height))
    assert int(kilobytes) << 10 < 12 * width * height


@pytest.mark.parametrize("mode", ["I;16", "I", "F", "RGBA", "LA", "PA"])
def test_bands_are_the_whole(mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    if mode in {"I;16", "I", "F"}:
        dtype = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
        image = Image.fromarray(rng.integers(0, 60_000, (37, 11)).astype(dtype))
    else:
        image = Image.fromarray(rng.integers(0, 256, (37, 11, 4), dtype=np.uint8)).convert(mode)
    image.save(tmp_path / "a.tif")
    whole = decode(tmp_path / "a.tif")
    monkeypatch.setattr(decoding, "_BAND", 30)
    assert np.array_equal(decode(tmp_path / "a.tif"), whole)


def test_square_resizes_the_short_side_and_crops_the_centre() -> None:
    image = Image.new("RGB", (40, 20), BLUE)
    image.paste(RED, (10, 0, 30, 20))  # the middle half
    pixels = square(image, Geometry(size=8, resize=10))
    assert pixels.shape == (8, 8, 3)
    assert pixels.dtype == np.uint8
    # Of 20 × 10 the columns 6 … 13 remain, inside the red ones 5 … 14 but for the filter's reach at the edges.
    assert (pixels[:, 1:7] == RED).all()


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    ("width", "height"), [(500, 375), (375, 500), (31, 31), (224, 224), (225, 257), (37, 1023), (801, 33), (256, 256)]
)
@pytest.mark.parametrize(("size", "resize"), [(224, 256), (224, 232), (97, 120), (33, 33)])
def test_the_square_is_torchvisions_bit_for_bit(
    width: int, height: int, size: int, resize: int, interpolation: Interpolation
) -> None:
    pixels = np.random.default_rng(width * height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    theirs = v2.Compose([v2.Resize(resize, InterpolationMode(interpolation)), v2.CenterCrop(size)])(image)
    ours = square(image, Geometry(size=size, resize=resize, interpolation=interpolation))
    assert np.array_equal(ours, np.asarray(theirs))


@pytest.mark.parametrize(("width", "height"), [(500, 375), (31, 64)])
@pytest.mark.parametrize(("size", "resize"), [(48, 48), (40, 48)])
def test_a_squashed_square_is_torchvisions_bit_for_bit(width: int, height: int, size: int, resize: int) -> None:
    pixels = np.random.default_rng(width * height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    theirs = v2.Compose([v2.Resize((resize, resize), InterpolationMode.BICUBIC), v2.CenterCrop(size)])(image)
    ours = square(image, Geometry(size=size, resize=resize, interpolation="bicubic", crop="squash"))
    assert np.array_equal(ours, np.asarray(theirs))


def gradient(width: int, height: int) -> Image.Image:
    """Red grows to the right, green downwards."""
    across, down = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([across, down, np.zeros_like(across)], axis=2).astype(np.uint8))


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize(("size", "shrunk"), [(60, False), (20, True)])
def test_a_part_is_that_of_the_upright_image_at_any_resolution(
    orientation: int, size: int, shrunk: bool, tmp_path: Path
) -> None:
    file = tmp_path / "photo.jpg"
    image = gradient(480, 320)
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(file, exif=exif, quality=95)
    upright = decode_rgb(file)
    asked: list[tuple[int, int]] = []

    def choose(width: int, height: int) -> tuple[int, int, int, int]:
        asked.append((width, height))
        return 40, 60, 200, 240

    part = decode_part(file, choose, size)
    assert asked == [upright.size]
    width, height = (40, 45) if shrunk else (160, 180)
    assert part.shape == (height, width, 3)
    wanted = upright.crop((40, 60, 200, 240)).resize((width, height))
    assert np.abs(part.astype(int) - np.asarray(wanted)).max() <= 6


def test_a_part_of_what_is_no_jpeg_is_decoded_whole(tmp_path: Path) -> None:
    gradient(480, 320).save(tmp_path / "photo.png")
    assert decode_part(tmp_path / "photo.png", lambda _w, _h: (0, 0, 400, 300), 20).shape == (300, 400, 3)
    (tmp_path / "damaged.jpg").write_bytes(b"no image")
    with pytest.raises(UnreadableImageError, match="not an image"):
        decode_part(tmp_path / "damaged.jpg", lambda _w, _h: (0, 0, 1, 1), 20)
