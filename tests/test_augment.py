"""Training views: what they may change, and that a seed says everything."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from ltrec.augment import AugmentSettings, NoCrop, PadCrop, ResizedCrop
from ltrec.data.decoding import Geometry, square

if TYPE_CHECKING:
    from numpy.typing import NDArray

GEOMETRY = Geometry(size=8, resize=8)
IMAGE = Image.fromarray(np.random.default_rng(0).integers(1, 256, (8, 8, 3)).astype(np.uint8))
PIXELS = np.asarray(IMAGE)


def views(settings: AugmentSettings, count: int = 60) -> list[NDArray[np.uint8]]:
    view = settings.build(GEOMETRY)
    return [view(IMAGE, seed) for seed in range(count)]


ALL = [
    AugmentSettings(),
    AugmentSettings(crop=PadCrop(), jitter=0.4),
    AugmentSettings(crop=NoCrop(), jitter=0.4),
]


@pytest.mark.parametrize("settings", ALL)
def test_the_seed_says_everything(settings: AugmentSettings) -> None:
    first, second = views(settings), views(settings)
    for one, other in zip(first, second, strict=True):
        assert one.shape == (8, 8, 3)
        assert one.dtype == np.uint8
        assert np.array_equal(one, other)
    assert len({one.tobytes() for one in first}) > 10


@pytest.mark.parametrize("settings", ALL)
def test_the_callers_generator_is_left_alone(settings: AugmentSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda _seed: pytest.fail("the GPU's generator was reset"))
    before = torch.random.get_rng_state()
    settings.build(GEOMETRY)(IMAGE, 5)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_without_anything_it_is_the_evaluation_square() -> None:
    wide = Image.fromarray(np.random.default_rng(1).integers(0, 256, (20, 31, 3)).astype(np.uint8))
    geometry = Geometry(size=8, resize=10)
    view = AugmentSettings(crop=NoCrop(), flip=False).build(geometry)
    assert np.array_equal(view(wide, 3), square(wide, geometry))


def test_padding_shifts_and_fills_with_black() -> None:
    padded = np.zeros((12, 12, 3), dtype=np.uint8)
    padded[2:10, 2:10] = PIXELS
    windows = {padded[top : top + 8, left : left + 8].tobytes() for top in range(5) for left in range(5)}
    seen = {view.tobytes() for view in views(AugmentSettings(crop=PadCrop(padding=2), flip=False), 400)}
    assert seen == windows


def test_half_of_the_images_are_mirrored() -> None:
    seen = [view.tobytes() for view in views(AugmentSettings(crop=NoCrop()), 400)]
    mirrored = seen.count(PIXELS[:, ::-1].tobytes())
    assert mirrored + seen.count(PIXELS.tobytes()) == 400
    assert abs(mirrored - 200) < 3 * 10  # three standard errors of 400 coin tosses


def test_a_resized_crop_of_the_whole_area_keeps_the_size_and_a_small_one_does_not() -> None:
    flat = Image.fromarray(np.tile(np.arange(64, dtype=np.uint8)[:, None, None], (1, 64, 3)))

    def spread(area: tuple[float, float]) -> list[int]:
        view = AugmentSettings(crop=ResizedCrop(area=area), flip=False).build(GEOMETRY)
        return [int(np.ptp(view(flat, seed))) for seed in range(20)]

    assert min(spread((1.0, 1.0))) > 48
    assert max(spread((0.01, 0.02))) < 16


def test_jitter_changes_colours_in_place() -> None:
    gray = Image.new("RGB", (8, 8), (100, 100, 100))
    view = AugmentSettings(crop=NoCrop(), flip=False, jitter=0.4).build(GEOMETRY)
    seen = np.array([view(gray, seed)[0, 0] for seed in range(50)])
    assert (seen == seen[:, :1]).all(), "gray stays gray: hue is left alone"
    assert seen.min() >= 59
    assert seen.max() <= 141
    assert len(np.unique(seen)) > 20


@pytest.mark.parametrize("area", [(0.5, 0.2), (0.0, 1.0), (0.5, 1.5)])
def test_an_impossible_area_is_refused(area: tuple[float, float]) -> None:
    with pytest.raises(ValidationError, match="area"):
        ResizedCrop(area=area)
