"""Training views: what they may change, that seed and draws say everything, and torchvision's distributions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from scipy.stats import ks_2samp
from torchvision.transforms import RandomResizedCrop, v2

from ltrec.data.images.augmentation import (
    Augment,
    AugmentSettings,
    ColorJitter,
    Flip,
    NoCrop,
    PadCrop,
    ResizedCrop,
    Shift,
)
from ltrec.data.images.dataset import resized
from ltrec.data.images.decoding import Geometry

PIXELS = torch.from_numpy(np.random.default_rng(0).integers(1, 256, (8, 8, 3)).astype(np.uint8))


def draw(count: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, width, generator=torch.Generator().manual_seed(seed))


def views(settings: AugmentSettings, count: int = 60, pixels: torch.Tensor = PIXELS) -> torch.Tensor:
    """Many views of one image, (count, H, W, 3)."""
    augment = settings.build()
    crop = augment.crop
    if crop is None:
        squares = pixels.expand(count, *pixels.shape)
    else:
        image, side = Image.fromarray(pixels.numpy()), len(pixels)
        geometry = Geometry(size=8, resize=8)
        squares = torch.stack(
            [resized(np.array(image.crop(crop(side, side, seed))), geometry) for seed in range(count)]
        )
    return augment(squares, draw(count, augment.draws))


ALL = [
    AugmentSettings(),
    AugmentSettings(jitter=0.4),
    AugmentSettings(crop=PadCrop(), jitter=0.4),
    AugmentSettings(crop=NoCrop(), jitter=0.4),
]


@pytest.mark.parametrize("settings", ALL)
def test_seed_and_draws_say_everything(settings: AugmentSettings) -> None:
    first, second = views(settings), views(settings)
    assert first.shape == (60, 8, 8, 3)
    assert first.dtype == (torch.float32 if settings.jitter else torch.uint8)
    assert first.min() >= 0
    assert first.max() <= 255
    assert torch.equal(first, second)
    assert len({view.numpy().tobytes() for view in first}) > 10


@pytest.mark.parametrize("settings", ALL)
def test_an_image_is_changed_alone_as_in_company(settings: AugmentSettings) -> None:
    augment = settings.build()
    squares, draws = PIXELS.expand(9, 8, 8, 3), draw(9, augment.draws)
    alone = [augment(squares[n : n + 1], draws[n : n + 1]) for n in range(9)]
    torch.testing.assert_close(torch.cat(alone), augment(squares, draws))


def test_without_anything_it_is_the_evaluation_square() -> None:
    augment = AugmentSettings(crop=NoCrop(), flip=False).build()
    assert (augment.crop, augment.draws) == (None, 0)
    assert torch.equal(augment(PIXELS[None], draw(1, 0)), PIXELS[None])


def test_padding_shifts_and_fills_with_black() -> None:
    padded = np.zeros((12, 12, 3), dtype=np.uint8)
    padded[2:10, 2:10] = PIXELS
    windows = [padded[top : top + 8, left : left + 8].tobytes() for top in range(5) for left in range(5)]
    seen = [v.numpy().tobytes() for v in views(AugmentSettings(crop=PadCrop(padding=2), flip=False), 2500)]
    counts = np.array([seen.count(window) for window in windows])
    assert counts.sum() == 2500
    # Each of 25 places is expected 100 times, with a standard deviation of 9.8.
    assert abs(counts - 100).max() < 4 * 9.8


def test_draws_at_the_ends_stay_inside() -> None:
    ends = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    padded = np.zeros((12, 12, 3), dtype=np.uint8)
    padded[2:10, 2:10] = PIXELS
    first, last = Shift(2)(PIXELS.expand(2, 8, 8, 3), ends)
    assert np.array_equal(first.numpy(), padded[:8, :8])
    assert np.array_equal(last.numpy(), padded[4:, 4:])
    assert ColorJitter(0.4)(PIXELS[None], torch.ones(1, 4)).isfinite().all()


def test_half_of_the_images_are_mirrored() -> None:
    seen = views(AugmentSettings(crop=NoCrop()), 400)
    mirrored = sum(torch.equal(view, PIXELS.flip(1)) for view in seen)
    assert mirrored + sum(torch.equal(view, PIXELS) for view in seen) == 400
    assert abs(mirrored - 200) < 3 * 10  # three standard errors of 400 coin tosses


def test_a_resized_crop_of_the_whole_area_keeps_the_size_and_a_small_one_does_not() -> None:
    flat = torch.arange(64, dtype=torch.uint8)[:, None, None].expand(64, 64, 3)

    def spread(area: tuple[float, float]) -> list[int]:
        seen = views(AugmentSettings(crop=ResizedCrop(area=area), flip=False), 20, flat)
        return [int(view.max()) - int(view.min()) for view in seen]

    assert min(spread((1.0, 1.0))) > 48
    assert max(spread((0.01, 0.02))) < 16


# torchvision rounds down to whole levels after each of its three changes.
_ROUNDING = 3.0


@pytest.mark.parametrize(("name", "place"), [("brightness", 1), ("contrast", 2), ("saturation", 3)])
@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_each_colour_change_is_torchvisions(name: str, place: int, share: float) -> None:
    draws = torch.full((1, 4), 0.5)  # a factor of 1 changes nothing
    draws[0, place] = share
    ours = ColorJitter(0.4)(PIXELS[None], draws)[0]
    change = getattr(v2.functional, f"adjust_{name}")
    theirs = change(PIXELS.permute(2, 0, 1), 0.6 + 0.8 * share).permute(1, 2, 0)
    assert (ours - theirs).abs().max() < 2  # it rounds down, the gray of the mean too


def test_the_three_come_in_the_order_drawn() -> None:
    factors = (0.7, 1.3, 0.8)
    changes = [v2.functional.adjust_brightness, v2.functional.adjust_contrast, v2.functional.adjust_saturation]
    orders = [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
    draws = torch.tensor([[(n + 0.5) / 6, *((factor - 0.6) / 0.8 for factor in factors)] for n in range(6)])
    ours = ColorJitter(0.4)(PIXELS.expand(6, 8, 8, 3), draws)
    for view, order in zip(ours, orders, strict=True):
        theirs = PIXELS.permute(2, 0, 1)
        for which in order:
            theirs = changes[which](theirs, factors[which])
        assert (view - theirs.permute(1, 2, 0)).abs().max() <= _ROUNDING


@pytest.mark.parametrize(
    ("step", "transform"),
    [
        (Flip(), v2.RandomHorizontalFlip()),
        (Shift(3), v2.RandomCrop(8, padding=3)),
        (ColorJitter(0.4), v2.ColorJitter(0.4, 0.4, 0.4)),
        (ColorJitter(1.5), v2.ColorJitter(1.5, 1.5, 1.5)),
    ],
)
def test_the_distribution_is_torchvisions(step: Any, transform: Any) -> None:
    """Two-sample Kolmogorov-Smirnov tests on what a pixel, a channel's mean and the spread become."""
    count = 1500
    ours = Augment(None, [step])(PIXELS.expand(count, 8, 8, 3), draw(count, step.draws, seed=1)).float()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        theirs = torch.stack([transform(PIXELS.permute(2, 0, 1)).permute(1, 2, 0) for _ in range(count)]).float()
    for statistic in (lambda x: x[:, 1, 6, 0], lambda x: x[..., 1].mean(dim=(1, 2)), lambda x: x.std(dim=(1, 2, 3))):
        # Whole levels, so that torchvision's rounding does not tell them apart.
        of_ours, of_theirs = (statistic(views).div(8).round().numpy() for views in (ours, theirs))
        assert ks_2samp(of_ours, of_theirs).pvalue > 1e-3


def test_gray_stays_gray_and_colours_stay_in_place() -> None:
    gray = torch.full((8, 8, 3), 100, dtype=torch.uint8)
    seen = views(AugmentSettings(crop=NoCrop(), flip=False, jitter=0.4), 50, gray)[:, 0, 0]
    torch.testing.assert_close(seen, seen[:, :1].expand(50, 3), atol=0.05, rtol=0)
    assert seen.min() >= 59
    assert seen.max() <= 141
    assert len(seen[:, 0].round().unique()) > 20


@pytest.mark.parametrize(
    ("width", "height", "area"), [(90, 60, (0.1, 0.6)), (50, 50, (0.08, 1.0)), (200, 40, (0.5, 1.0))]
)
def test_crops_are_distributed_as_torchvisions(width: int, height: int, area: tuple[float, float]) -> None:
    crop, count = ResizedCrop(area=area), 3000
    ours = np.array([crop.part(width, height, seed) for seed in range(count)])
    assert (ours[:, :2] >= 0).all()
    assert (ours[:, 2:] <= [width, height]).all()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        image = torch.empty((3, height, width), device="meta")
        drawn = [RandomResizedCrop.get_params(image, list(area), [3 / 4, 4 / 3]) for _ in range(count)]
    theirs = np.array([(left, top, left + wide, top + high) for top, left, high, wide in drawn])

    def shapes(boxes: Any) -> list[Any]:
        wide, high = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
        return [boxes[:, 0], boxes[:, 1], wide, high, wide * high, wide / high]

    for mine, other in zip(shapes(ours), shapes(theirs), strict=True):
        assert ks_2samp(mine, other).pvalue > 1e-3


def test_where_no_crop_fits_the_middle_is_taken() -> None:
    # Of a strip, half of the area is wider than any allowed aspect: the widest part in the middle.
    assert ResizedCrop(area=(0.9, 1.0)).part(300, 30, 0) == (130, 0, 170, 30)
    assert ResizedCrop(area=(0.9, 1.0)).part(30, 300, 0) == (0, 130, 30, 170)


@pytest.mark.parametrize("area", [(0.5, 0.2), (0.0, 1.0), (0.5, 1.5)])
def test_an_impossible_area_is_refused(area: tuple[float, float]) -> None:
    with pytest.raises(ValidationError, match="area"):
        ResizedCrop(area=area)


def test_jitter_sends_its_constants_to_a_device_once(monkeypatch: pytest.MonkeyPatch) -> None:
    jitter, images = ColorJitter(0.4), torch.zeros(2, 4, 4, 3, dtype=torch.uint8)
    jitter(images, torch.rand(2, 4))
    monkeypatch.setattr(torch, "tensor", lambda *_given, **_named: pytest.fail("a GPU would be waited for"))
    jitter(images, torch.rand(2, 4))
