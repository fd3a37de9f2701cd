"""Colours of ICC profiles become sRGB, alike on every way, and what is sRGB already is left alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from ltrec.data.images import colours, decoding, jpeg
from ltrec.data.images.decoding import Geometry, decode_rgb, decode_square, require_decodable, square
from tests.data.images import profiles
from tests.hostile import changed

if TYPE_CHECKING:
    from pathlib import Path

P3 = profiles.of_primaries(profiles.DISPLAY_P3, profiles.srgb_curve())
ADOBE = profiles.of_primaries(profiles.ADOBE_RGB, profiles.gamma(2.19921875))
SRGB = profiles.of_primaries(profiles.SRGB, profiles.srgb_curve())
COLOURS = [(200, 100, 50), (90, 160, 90), (60, 80, 170), (128, 128, 128), (255, 255, 255)]
SRGB_XYZ = np.array(profiles.SRGB)


def decoded(file: Path) -> Any:
    return np.asarray(decode_rgb(file)).astype(int)


def patches(mode: str = "RGB") -> Image.Image:
    """A column of 16 pixels for each colour."""
    return Image.fromarray(np.repeat(np.array([COLOURS], dtype=np.uint8), 16, axis=0)).convert(mode)


def linear(value: Any) -> Any:
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def expected(primaries: Any, curve: Any) -> Any:
    """The colours in sRGB by the definition: linear light, XYZ under D50, linear light in sRGB, its curve."""
    light = np.clip(curve(np.array(COLOURS) / 255) @ np.array(primaries) @ np.linalg.inv(SRGB_XYZ), 0, 1)
    return 255 * np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize(
    ("profile", "primaries", "curve"),
    [(P3, profiles.DISPLAY_P3, linear), (ADOBE, profiles.ADOBE_RGB, lambda value: value**2.19921875)],
)
@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_wider_colours_become_those_of_srgb(
    profile: bytes, primaries: Any, curve: Any, suffix: str, tmp_path: Path
) -> None:
    options = {"lossless": True, "exact": True} if suffix == "webp" else {}
    patches().save(tmp_path / f"a.{suffix}", icc_profile=profile, **options)
    assert np.abs(decoded(tmp_path / f"a.{suffix}")[0] - expected(primaries, curve)).max() <= 2
    assert np.abs(decoded(tmp_path / f"a.{suffix}")[0] - COLOURS).max() > 10
    require_decodable(tmp_path / f"a.{suffix}")


def test_what_is_srgb_is_left_alone(tmp_path: Path) -> None:
    patches().save(tmp_path / "a.png", icc_profile=SRGB)
    assert decoded(tmp_path / "a.png")[0].tolist() == [list(colour) for colour in COLOURS]
    with Image.open(tmp_path / "a.png") as opened:
        assert opened.info["icc_profile"] == SRGB
        assert colours.srgb_transform(opened) is None


def test_a_press_and_gray(tmp_path: Path) -> None:
    inks = Image.new("CMYK", (16, 16), (0, 0, 0, 255))
    inks.save(tmp_path / "inks.tif", icc_profile=profiles.of_inks())
    # Lightness 40 of 100 is 94 or so of 255; without the profile black ink alone is black.
    assert np.abs(decoded(tmp_path / "inks.tif") - 94).max() <= 5
    inks.save(tmp_path / "plain.tif")
    assert decoded(tmp_path / "plain.tif").max() == 0
    Image.new("L", (16, 16), 128).save(tmp_path / "gray.png", icc_profile=profiles.of_gray(1.0))
    assert np.abs(decoded(tmp_path / "gray.png") - 188).max() <= 1  # 255 · (1.055 · 0.502^(1/2.4) − 0.055)


def test_transparency_stays_and_palettes_are_converted(tmp_path: Path) -> None:
    image = patches("RGBA")
    image.putalpha(Image.fromarray(np.repeat(np.uint8([[255, 255, 255, 255, 0]]), 16, axis=0)))
    image.save(tmp_path / "a.png", icc_profile=P3)
    wanted = expected(profiles.DISPLAY_P3, linear)
    assert np.abs(decoded(tmp_path / "a.png")[0] - wanted).max() <= 2
    patches().convert("P", palette=Image.Palette.ADAPTIVE, colors=8).save(tmp_path / "p.png", icc_profile=P3)
    assert np.abs(decoded(tmp_path / "p.png")[0] - wanted).max() <= 4


@pytest.mark.parametrize(
    "profile", [b"no profile", P3[:200], bytes(5 << 20), profiles.of_inks(), profiles.of_gray(1.0)]
)
def test_a_damaged_profile_or_one_of_another_mode_is_ignored(profile: bytes, tmp_path: Path) -> None:
    patches().save(tmp_path / "a.tif", icc_profile=profile)
    assert decoded(tmp_path / "a.tif")[0].tolist() == [list(colour) for colour in COLOURS]


def test_profiles_with_changed_bytes_never_crash() -> None:
    for seed in range(80):
        for profile, mode in ((P3, "RGB"), (profiles.of_inks(), "CMYK")):
            image = patches(mode)
            image.info["icc_profile"] = changed(profile, seed)
            assert colours.to_rgb(image).mode == "RGB"


@pytest.mark.parametrize("profile", [P3, ADOBE, SRGB, None, b"no profile"])
@pytest.mark.parametrize("size", [(61, 47), (640, 480)])
def test_both_ways_to_decode_a_jpeg_give_the_same_colours(
    profile: bytes | None, size: tuple[int, int], tmp_path: Path
) -> None:
    photo = Image.effect_noise((9, 9), 90).convert("RGB").resize(size, Image.Resampling.BICUBIC)
    Image.blend(photo, Image.new("RGB", size, (250, 60, 30)), 0.5).save(tmp_path / "a.jpg", icc_profile=profile)

    def whole(width: int, height: int) -> tuple[int, int, int, int]:
        return 0, 0, width, height

    fast, slow = (decode(tmp_path / "a.jpg", whole, 32) for decode in (jpeg.decode_part, decoding.decode_part))
    assert np.abs(fast.astype(int) - slow).max() <= 2
    small = decode_rgb(tmp_path / "a.jpg").resize(fast.shape[1::-1], Image.Resampling.BOX)
    assert np.abs(np.asarray(small).astype(int) - fast).mean() < 2


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "CMYK"])
@pytest.mark.parametrize("profile", [P3, None])
def test_the_square_of_a_file_is_that_of_its_colours(mode: str, profile: bytes | None, tmp_path: Path) -> None:
    # Of the size of the square, so that one that is made twice would show.
    geometry = Geometry(size=48, resize=64)
    patches(mode).resize((48, 48)).save(tmp_path / "a.tif", icc_profile=profile)
    ours = decode_square(tmp_path / "a.tif", geometry).astype(int)
    wanted = square(decode_rgb(tmp_path / "a.tif"), geometry)
    assert ours.shape == (48, 48, 3)
    # Before or after resizing is another rounding, and another mean between two colours.
    assert np.abs(ours - wanted).max() <= (6 if mode == "RGB" and profile else 0)


def test_threads_share_a_profile(tmp_path: Path) -> None:
    for n in range(16):
        patches().resize((300 + n, 300)).save(tmp_path / f"{n}.png", icc_profile=P3)
    files = [tmp_path / f"{n}.png" for n in range(16)] * 4
    alone = [decoded(file) for file in files]
    with ThreadPoolExecutor(8) as pool:
        assert all(map(np.array_equal, pool.map(decoded, files), alone))
