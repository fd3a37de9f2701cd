"""Files of every kind become upright RGB, or say why not."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import InterpolationMode, v2

from ltrec.data.images.decoding import Geometry, Interpolation, UnreadableImageError, decode_part, decode_rgb, square

if TYPE_CHECKING:
    from pathlib import Path

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
        "": "cannot be read (Is a directory)",
    }


def test_damaged_bytes_never_crash(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))
    outcomes: set[str] = set()
    for suffix in ("png", "jpg", "gif", "bmp", "tif", "webp", "ico", "ppm"):
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
