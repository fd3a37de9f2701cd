"""Augmentation policies: torchvision's operations and tables, whatever the company in a batch."""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torchvision.transforms import v2

from ltrec.data.images.augmentation import AugmentSettings, NoCrop, PadCrop
from ltrec.data.images.erasing import Cutout
from ltrec.data.images.policies import (
    AutoAugment,
    LearntPairs,
    OneOperation,
    PolicyStep,
    RandAugment,
    RandomOperations,
    TrivialAugment,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

IMAGES = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (24, 16, 16, 3)).astype(np.uint8))
POLICIES = [
    *(AutoAugment(policy=name) for name in ("cifar10", "imagenet", "svhn")),
    RandAugment(),
    RandAugment(operations=3, magnitude=20, fill=128),
    TrivialAugment(fill=128),
]
each = pytest.mark.parametrize("settings", POLICIES, ids=repr)


def draw(count: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, width, generator=torch.Generator().manual_seed(seed))


def built(settings: Any) -> PolicyStep:
    step = settings.build()
    assert isinstance(step, PolicyStep)
    return step


class Replayed:
    """torchvision's own call on one image, with the random numbers that it asks for given in their order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.numbers: Iterator[float] = iter(())
        monkeypatch.setattr(torch, "rand", lambda _shape: torch.tensor(next(self.numbers)))
        monkeypatch.setattr(torch, "randint", lambda high, _shape: torch.tensor(int(next(self.numbers) * high)))

    def __call__(self, transform: Any, image: torch.Tensor, numbers: list[float]) -> torch.Tensor:
        self.numbers = iter(numbers)
        changed: torch.Tensor = transform(image.permute(2, 0, 1)).permute(1, 2, 0)
        return changed


def asked_for(step: PolicyStep, draws: list[float]) -> list[float]:
    """The random numbers that torchvision asks for, when it is to do what our draws say.

    It draws a sign only for an operation that comes and has two directions, and a bin only for one that has bins.
    """
    transform = step._transform
    space, asked = transform._AUGMENTATION_SPACE, list[float]()
    if isinstance(step, LearntPairs):
        asked.append(draws[0])
        for (name, probability, _), came, sign in zip(
            transform._policies[int(draws[0] * 25)], draws[1::2], draws[2::2], strict=True
        ):
            asked += [came, sign] if came <= probability and space[name][1] else [came]
    elif isinstance(step, RandomOperations):
        for which, sign in zip(draws[::2], draws[1::2], strict=True):
            asked += [which, sign] if list(space.values())[int(which * len(space))][1] else [which]
    else:
        of_bins, signed = list(space.values())[int(draws[0] * len(space))]
        has_bins = of_bins(31, 16, 16) is not None
        asked += [draws[0], *([draws[1]] if has_bins else []), *([draws[2]] if signed else [])]
    return asked


@each
def test_the_same_draw_gives_torchvisions_pixels(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    step = built(settings)
    images = IMAGES.repeat(20, 1, 1, 1)
    draws = draw(len(images), step.draws)
    ours = step(images, draws)
    assert ours.dtype == torch.uint8
    assert ours.shape == images.shape
    replayed = Replayed(monkeypatch)
    for image, numbers, changed in zip(images, draws.tolist(), ours, strict=True):
        theirs = replayed(step._transform, image, asked_for(step, numbers))
        assert torch.equal(changed, theirs), numbers
        assert not list(replayed.numbers), "torchvision took as many"


@each
def test_an_image_is_changed_alone_as_in_company(settings: Any) -> None:
    step = built(settings)
    draws = draw(len(IMAGES), step.draws)
    alone = [step(IMAGES[n : n + 1], draws[n : n + 1]) for n in range(len(IMAGES))]
    assert torch.equal(torch.cat(alone), step(IMAGES, draws))
    assert step(IMAGES[:0], draws[:0]).shape == (0, 16, 16, 3)


@pytest.mark.parametrize("policy", ["cifar10", "imagenet", "svhn"])
def test_pairs_come_as_the_table_says(policy: Any) -> None:
    """How often each operation comes, against the sum over the 25 pairs of 1/25 times its probability there."""
    step, count = built(AutoAugment(policy=policy)), 20_000
    expected = collections.Counter[str]()
    for pair in v2.AutoAugment(v2.AutoAugmentPolicy(policy))._policies:
        for name, probability, _ in pair:
            expected[name] += probability / 25
    seen = collections.Counter(
        operation[0]
        for row in draw(count, step.draws).tolist()
        for operation in step.operations(row, 32)
        if operation is not None
    )
    assert seen.keys() == {name for name, share in expected.items() if share}
    for name, share in expected.items():
        # The count is a sum over images of a number in 0…2, whose variance is at most twice its mean.
        assert abs(seen[name] / count - share) < 5 * np.sqrt(2 * share / count)


def test_both_directions_come_alike_and_only_where_there_are_two() -> None:
    step = built(TrivialAugment())
    assert isinstance(step, OneOperation)
    operations = [step.operations(row, 32)[0] for row in draw(20_000, 3).tolist()]
    signs = collections.Counter((op[0], np.sign(op[1])) for op in operations if op is not None)
    for name, (_, signed) in v2.TrivialAugmentWide._AUGMENTATION_SPACE.items():
        if name == "Identity":
            continue
        forward, backward = signs[name, 1.0], signs[name, -1.0]
        assert (backward > 0) is signed
        if signed:  # about 700 each: 5 standard errors of the difference of a coin's sides
            assert abs(forward - backward) < 5 * np.sqrt(forward + backward)
    # Each of the 14 operations is expected 1,429 times, with a standard deviation of 36.
    shares = collections.Counter("Identity" if op is None else op[0] for op in operations)
    assert len(shares) == 14
    assert max(abs(seen - 20_000 / 14) for seen in shares.values()) < 5 * 37


def test_draws_at_the_ends_stay_inside() -> None:
    for settings in POLICIES:
        step = built(settings)
        step(IMAGES[:2], torch.stack([torch.zeros(step.draws), torch.ones(step.draws)]))


def test_the_fill_comes_in_where_the_image_goes() -> None:
    # One of CIFAR-10's pairs is twice a shift along y.
    pairs = v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10)._policies
    number = next(n for n, pair in enumerate(pairs) if all(part[0] == "TranslateY" for part in pair))
    draws = torch.tensor([[(number + 0.5) / 25, 0.0, 1.0, 1.0, 1.0]])  # the first comes, forward; the second does not
    white = torch.full((1, 32, 32, 3), 255, dtype=torch.uint8)
    for fill in (0, 128):
        moved = built(AutoAugment(policy="cifar10", fill=fill))(white, draws)[0]
        # The largest magnitude is 150/331 of the side: 14 of 32 pixels.
        assert moved[:14].eq(fill).all()
        assert moved[14:].eq(255).all()


def test_a_policy_follows_crop_and_flip_and_precedes_what_is_erased() -> None:
    settings = AugmentSettings(crop=PadCrop(), jitter=0.4, policy=TrivialAugment(), erase=Cutout(size=4))
    augment = settings.build((0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    assert [type(step).__name__ for step in augment._steps] == [
        "Shift",
        "Flip",
        "OneOperation",
        "ColorJitter",
        "Square",
    ]
    assert augment.draws == 2 + 1 + 3 + 4 + 2


def test_settings_without_it_draw_as_before() -> None:
    plain = AugmentSettings(crop=NoCrop(), jitter=0.4).build()
    assert plain.draws == 1 + 4
    assert "policy" not in AugmentSettings().model_dump(exclude_none=True)


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({"policy": {"name": "auto_augment", "policy": "cifar"}}, "policy"),
        ({"policy": {"name": "auto_augment"}}, "policy"),
        ({"policy": {"name": "rand_augment", "magnitude": 31}}, r"must be below bins \(31\), got 31"),
        ({"policy": {"name": "rand_augment", "operations": 0}}, "operations"),
        ({"policy": {"name": "trivial_augment", "bins": 1}}, "bins"),
        ({"policy": {"name": "trivial_augment", "fill": 256}}, "fill"),
    ],
)
def test_what_no_policy_has_is_refused(given: dict[str, Any], what: str) -> None:
    with pytest.raises(ValidationError, match=what):
        AugmentSettings.model_validate(given)
