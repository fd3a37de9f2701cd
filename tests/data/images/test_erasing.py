"""What is wiped out of an image: which rectangle, how often, and by what."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.stats import ks_2samp, kstest
from torchvision.transforms import RandomErasing as Reference

from ltrec.data.images.augmentation import AugmentSettings
from ltrec.data.images.erasing import Cutout, RandomErasing

MEAN, STD = (0.2, 0.4, 0.6), (0.1, 0.2, 0.1)
WHITE = torch.full((1, 8, 8, 3), 255, dtype=torch.uint8)


def draw(count: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, width, generator=torch.Generator().manual_seed(seed))


def erased(settings: Any, count: int, side: int) -> torch.Tensor:
    """Where each of many images lost its pixels, bool (count, side, side)."""
    step = settings.build(MEAN, STD)
    white = torch.full((1, side, side, 3), 255, dtype=torch.uint8).expand(count, side, side, 3)
    lost: torch.Tensor = (step(white, draw(count, step.draws)) != 255).any(dim=3)
    return lost


def test_a_square_around_a_pixel_is_cut_off_at_the_border() -> None:
    # Centres (row, column) = (0, 4), (7, 7) and (3, 0) of 8 × 8; a side of 4 reaches from c − 2 to c + 1.
    draws = torch.tensor([[0.0, 0.5], [1.0, 1.0], [0.4, 0.05]])
    step = Cutout(size=4).build(MEAN, STD)
    found = step(WHITE.expand(3, 8, 8, 3), draws)
    expected = WHITE.repeat(3, 1, 1, 1)
    mean = torch.tensor([51, 102, 153], dtype=torch.uint8)  # 255 · (0.2, 0.4, 0.6)
    expected[0, 0:2, 2:6] = expected[1, 5:8, 5:8] = expected[2, 1:5, 0:2] = mean
    assert found.dtype == torch.uint8
    assert torch.equal(found, expected)


def test_what_is_erased_is_nothing_to_the_network() -> None:
    mean = (0.4914, 0.4822, 0.4465)
    step = Cutout(size=20).build(mean, STD)
    whole = step(WHITE, draw(1, 2))
    assert ((whole / 255 - torch.tensor(mean)).abs() <= 0.5 / 255).all(), "the nearest level there is"
    assert torch.equal(step(WHITE.float(), draw(1, 2)), (torch.tensor(mean) * 255).expand(1, 8, 8, 3)), "after jitter"


def test_a_cutouts_area_is_that_of_its_places() -> None:
    # From centres 0 … 7 a side of 4 has 2, 3, 4, 4, 4, 4, 4 and 3 rows inside, 3.5 of 8 on average; columns alike.
    share = erased(Cutout(size=4), 4000, 8).float().mean()
    assert share == pytest.approx((3.5 / 8) ** 2, abs=0.005)


@pytest.mark.parametrize("options", [{}, {"area": (0.1, 0.9), "aspect": (0.5, 4.0), "probability": 0.8}])
def test_rectangles_are_distributed_as_torchvisions(options: dict[str, Any]) -> None:
    settings, count, side = RandomErasing(**options), 3000, 32
    ours = erased(settings, count, side)
    transform = Reference(settings.probability, settings.area, settings.aspect, value=0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        theirs = torch.stack([transform(torch.ones(3, side, side))[0] == 0 for _ in range(count)])
    for lost in (ours, theirs):  # rectangles: what is lost is all of some rows and columns
        rows, columns = lost.any(dim=2), lost.any(dim=1)
        assert torch.equal(lost, rows[:, :, None] & columns[:, None])
    hits = (ours.any(dim=2).any(dim=1).float().mean() - theirs.any(dim=2).any(dim=1).float().mean()).abs()
    assert hits < 4 * np.sqrt(2 * 0.25 / count)
    for statistic in (
        lambda lost: lost.sum(dim=(1, 2)),
        lambda lost: lost.any(dim=2).sum(dim=1),
        lambda lost: lost.any(dim=2).byte().argmax(dim=1),
        lambda lost: lost.any(dim=1).byte().argmax(dim=1),
    ):
        assert ks_2samp(statistic(ours).numpy(), statistic(theirs).numpy()).pvalue > 1e-3


def test_where_no_rectangle_fits_the_image_stays() -> None:
    step = RandomErasing(probability=1.0, area=(0.99, 0.99), aspect=(3.0, 3.0)).build(MEAN, STD)
    assert torch.equal(step(WHITE, draw(1, step.draws)), WHITE)


def test_the_fill_is_the_mean_a_level_or_noise_of_each_image() -> None:
    options: dict[str, Any] = {"probability": 1.0, "area": (0.5, 0.5), "aspect": (1.0, 1.0)}
    white = torch.full((400, 32, 32, 3), 255.0)
    for value, colour in (("mean", [51.0, 102.0, 153.0]), (7.0, [7.0, 7.0, 7.0])):
        step = RandomErasing(value=value, **options).build(MEAN, STD)
        found = step(white, draw(400, step.draws))
        pixels = found[(found != 255).any(dim=3)]
        torch.testing.assert_close(pixels, torch.tensor(colour).expand_as(pixels))
    step = RandomErasing(value="random", **options).build(MEAN, STD)
    draws = draw(400, step.draws)
    noisy = step(white, draws)
    pixels = noisy[(noisy != 255).any(dim=3)]
    # Red has mean 51 and deviation 25.5; its standard normal, up to what is cut off at 0 (below −2).
    normal = ((pixels[:20_000, 0] - 51) / 25.5).double().numpy()
    assert kstest(normal[normal > -1.9], lambda x: _above(x, -1.9)).pvalue > 1e-3
    assert torch.equal(noisy[7:8], step(white[7:8], draws[7:8])), "whatever the company"
    assert len({image.numpy().tobytes() for image in noisy}) == 400
    assert step(white[:2].byte(), draws[:2]).dtype == torch.uint8


def _above(x: Any, low: float) -> Any:
    from scipy.stats import norm

    return (norm.cdf(x) - norm.cdf(low)) / (1 - norm.cdf(low))


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({"name": "cutout", "size": 0}, "size"),
        ({"name": "random_erasing", "probability": 0.0}, "probability"),
        ({"name": "random_erasing", "area": (0.5, 0.2)}, r"area must be \[smallest, largest\], got \[0.5, 0.2\]"),
        ({"name": "random_erasing", "aspect": (2.0, 1.0)}, "aspect must be"),
        ({"name": "random_erasing", "value": 256.0}, "value"),
        ({"name": "mixup"}, "cutout"),
    ],
)
def test_what_cannot_be_erased_is_refused(given: dict[str, Any], what: str) -> None:
    with pytest.raises(ValidationError, match=what):
        AugmentSettings.model_validate({"erase": given})
