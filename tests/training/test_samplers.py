"""The sampling strategies by hand: probabilities, cycles, and that no image waits while another comes twice."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from ltrec.training import samplers
from ltrec.training.samplers import (
    ClassBalanced,
    FrequencySampler,
    InstanceBalanced,
    Power,
    ProgressivelyBalanced,
    Sampler,
    SquareRoot,
    power_probabilities,
    progressive_probabilities,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

COUNTS = np.array([100, 10, 1])
LABELS = np.repeat(np.arange(3), COUNTS)


def drawn(sampler: Sampler, epochs: int) -> NDArray[np.int64]:
    return np.concatenate([sampler.epoch(epoch) for epoch in range(epochs)])


def test_power_probabilities_by_hand() -> None:
    assert power_probabilities(COUNTS, 1) == pytest.approx([100 / 111, 10 / 111, 1 / 111])
    assert power_probabilities(COUNTS, 0) == pytest.approx([1 / 3, 1 / 3, 1 / 3])
    # √100 = 10, √10 = 3.16228, √1 = 1: 14.16228 in all.
    assert power_probabilities(COUNTS, 0.5) == pytest.approx([0.706101, 0.223289, 0.070610], abs=1e-6)
    # n^¼: 3.162278, 1.778279, 1: 5.940557 in all.
    assert power_probabilities(COUNTS, 0.25) == pytest.approx([0.532320, 0.299346, 0.168334], abs=1e-6)


def test_progressive_goes_from_instance_to_class_balanced() -> None:
    assert np.array_equal(progressive_probabilities(COUNTS, 0.0), power_probabilities(COUNTS, 1))
    assert np.array_equal(progressive_probabilities(COUNTS, 1.0), power_probabilities(COUNTS, 0))
    # ½·100/111 + ½·⅓, and so on.
    assert progressive_probabilities(COUNTS, 0.5) == pytest.approx([0.617117, 0.211712, 0.171171], abs=1e-6)


def test_progressive_sampler_is_balanced_at_its_last_epoch() -> None:
    sampler = ProgressivelyBalanced().build(LABELS, seed=0, epochs=5)
    assert isinstance(sampler, FrequencySampler)
    assert np.array_equal(sampler._probabilities(COUNTS, 0), power_probabilities(COUNTS, 1))
    assert np.array_equal(sampler._probabilities(COUNTS, 2), progressive_probabilities(COUNTS, 0.5))
    assert np.array_equal(sampler._probabilities(COUNTS, 4), power_probabilities(COUNTS, 0))


def test_progressive_over_one_epoch_is_instance_balanced() -> None:
    sampler = ProgressivelyBalanced().build(LABELS, seed=0, epochs=1)
    assert isinstance(sampler, FrequencySampler)
    assert np.array_equal(sampler._probabilities(COUNTS, 0), power_probabilities(COUNTS, 1))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (SquareRoot(), power_probabilities(COUNTS, 0.5)),
        (Power(q=0.25), power_probabilities(COUNTS, 0.25)),
        (Power(q=0.0), power_probabilities(COUNTS, 0)),
    ],
)
def test_classes_are_drawn_as_often_as_asked(settings: SquareRoot | Power, expected: NDArray[np.float64]) -> None:
    draws = drawn(settings.build(LABELS, seed=0, epochs=300), 300)
    frequencies = np.bincount(LABELS[draws], minlength=3) / len(draws)
    standard_error = np.sqrt(expected * (1 - expected) / len(draws))
    assert (np.abs(frequencies - expected) < 3 * standard_error).all()


def test_power_one_half_is_square_root() -> None:
    square_root, power = (settings.build(LABELS, seed=3, epochs=4) for settings in (SquareRoot(), Power(q=0.5)))
    assert np.array_equal(drawn(square_root, 4), drawn(power, 4))


def test_instance_balanced_shows_every_image_once_an_epoch_in_a_new_order() -> None:
    sampler = InstanceBalanced().build(LABELS, seed=0, epochs=2)
    first, second = sampler.epoch(0), sampler.epoch(1)
    assert np.array_equal(np.sort(first), np.arange(111))
    assert np.array_equal(np.sort(second), np.arange(111))
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("per_visit", [1, 3, 4])
def test_class_balanced_visits_every_class_once_a_cycle(per_visit: int) -> None:
    # 12 epochs of 111 images are a whole number of cycles of 3 · per_visit images.
    draws = drawn(ClassBalanced(per_visit=per_visit).build(LABELS, seed=0, epochs=12), 12)
    visits = LABELS[draws].reshape(-1, per_visit)
    assert (visits == visits[:, :1]).all()
    cycles = visits[:, 0].reshape(-1, 3)
    assert (np.sort(cycles, axis=1) == [0, 1, 2]).all()
    assert len(np.unique(cycles, axis=0)) == 6, "all orders of three classes come"


def test_a_round_of_a_class_is_shuffled_anew() -> None:
    draws = drawn(Power(q=0.0).build(LABELS, seed=0, epochs=30), 30)
    of_class = draws[LABELS[draws] == 0]
    first, second = of_class[:100], of_class[100:200]
    assert np.array_equal(np.sort(first), np.sort(second))
    assert not np.array_equal(first, second)
    # Places of the same image in two random orders correlate by 1/√100 or so.
    assert abs(np.corrcoef(np.argsort(first), np.argsort(second))[0, 1]) < 0.3


def test_a_class_larger_than_an_epochs_share_goes_on_where_it_stopped() -> None:
    labels = np.repeat([0, 1], [50, 2])
    draws = drawn(ClassBalanced(per_visit=1).build(labels, seed=0, epochs=2), 2)
    of_large = draws[labels[draws] == 0]
    assert len(of_large) == 52
    assert np.array_equal(np.sort(of_large[:50]), np.arange(50))


# 1280 … 5 images a class, 115,562 in all, like ImageNet-LT.
LONG = (1280 * (5 / 1280) ** (np.arange(1000) / 999) ** 0.62).round().astype(np.int64)
LONG_LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(1000), LONG))
EPOCHS = 9


def shares(q: float) -> NDArray[np.float64]:
    """n_j^q / Σ n_i^q, term by term."""
    total = sum(float(n) ** q for n in LONG)
    return np.array([float(n) ** q / total for n in LONG])


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (InstanceBalanced(), [shares(1)] * EPOCHS),
        (ClassBalanced(), [shares(0)] * EPOCHS),
        (ClassBalanced(per_visit=1), [shares(0)] * EPOCHS),
        (SquareRoot(), [shares(0.5)] * EPOCHS),
        (Power(q=0.2), [shares(0.2)] * EPOCHS),
        (
            ProgressivelyBalanced(),
            [(1 - t / (EPOCHS - 1)) * shares(1) + t / (EPOCHS - 1) * shares(0) for t in range(EPOCHS)],
        ),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_frequencies_over_a_million_draws(settings: Any, expected: list[NDArray[np.float64]]) -> None:
    draws = drawn(settings.build(LONG_LABELS, seed=0, epochs=EPOCHS), EPOCHS)
    assert len(draws) > 1_000_000
    observed, mean = np.bincount(LONG_LABELS[draws], minlength=1000), sum(expected) * len(LONG_LABELS)
    variance = sum(p * (1 - p) for p in expected) * len(LONG_LABELS)
    # Of 1000 classes that are drawn independently, 2.7 lie beyond 3 standard errors by chance, 8 hardly ever;
    # whole cycles and whole epochs keep closer than that.
    far = np.abs(observed - mean) > 3 * np.sqrt(variance)
    assert far.sum() < 8
    assert (np.abs(observed - mean) < 5 * np.sqrt(variance)).all()
    groups = np.minimum(LONG // 100, 3)  # taken together, the errors of many classes show a bias
    for group in range(4):
        members = groups == group
        total, share = mean[members].sum(), [p[members].sum() for p in expected]
        error = np.sqrt(sum(p * (1 - p) for p in share) * len(LONG_LABELS))
        assert abs(observed[members].sum() - total) < 3 * error


def test_progressive_sampling_is_exact_at_both_ends() -> None:
    progressive = ProgressivelyBalanced().build(LABELS, seed=4, epochs=7)
    first, last = (Power(q=q).build(LABELS, seed=4, epochs=7) for q in (1.0, 0.0))
    assert np.array_equal(progressive.epoch(0), first.epoch(0))
    # The cycles within the classes have gone on to another place; the classes drawn are the same.
    for epoch in range(1, 6):
        progressive.epoch(epoch)
    assert np.array_equal(LABELS[progressive.epoch(6)], LABELS[last.epoch(6)])


def slow_cycle(seed: int, label: int, labels: NDArray[np.int64], turns: int) -> list[int]:
    """A class's cycle: image by image one number of the class's own stream, each turn sorted by them."""
    images = np.flatnonzero(labels == label).tolist()
    key = np.random.Philox(seed).state["state"]["key"]
    numbers = iter(np.random.Philox(counter=[0, 0, label, 0], key=key).random_raw(turns * len(images)).tolist())
    cycle: list[int] = []
    for _ in range(turns):
        number = {image: next(numbers) for image in images}
        cycle += sorted(images, key=lambda image: number[image])
    return cycle


@pytest.mark.parametrize("settings", [ClassBalanced(), SquareRoot(), Power(q=0.1)], ids=lambda settings: settings.name)
def test_images_are_those_of_a_slow_cycle(settings: Any) -> None:
    labels = np.random.default_rng(1).permutation(np.repeat([0, 1, 3], [30, 9, 2]))
    draws = drawn(settings.build(labels, seed=5, epochs=8), 8)
    for label, count in Counter(labels[draws].tolist()).items():
        expected = slow_cycle(5, label, labels, turns=count)
        assert draws[labels[draws] == label].tolist() == expected[:count]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (InstanceBalanced(), [[1, 4, 2, 3, 5, 0], [2, 0, 5, 4, 3, 1]]),
        (ClassBalanced(per_visit=2), [[3, 2, 4, 5, 4, 5], [0, 1, 5, 4, 2, 0]]),
        (SquareRoot(), [[3, 4, 5, 4, 2, 5], [5, 0, 4, 1, 2, 4]]),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_orders_as_they_came_on_another_machine(settings: Any, expected: list[list[int]]) -> None:
    # A resume elsewhere and every rank of a distributed run rely on it. Written down on x86-64 with NumPy 2.4.
    sampler = settings.build(np.repeat([0, 1], [4, 2]), seed=5, epochs=2)
    assert [sampler.epoch(epoch).tolist() for epoch in range(2)] == expected


def test_pieces_are_drawn_independently(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samplers, "_DRAWS_AT_ONCE", 10)
    draws = drawn(SquareRoot().build(LABELS, seed=0, epochs=300), 300)
    expected = power_probabilities(COUNTS, 0.5)
    frequencies = np.bincount(LABELS[draws], minlength=3) / len(draws)
    assert (np.abs(frequencies - expected) < 3 * np.sqrt(expected * (1 - expected) / len(draws))).all()
    # Neighbours are independent, too: p_j² of all pairs show class j twice.
    classes = LABELS[draws].reshape(300, 111)
    twice = np.array([((classes[:, :-1] == j) & (classes[:, 1:] == j)).mean() for j in range(3)])
    assert twice == pytest.approx(expected**2, abs=0.01)


@pytest.mark.parametrize("tail", [0, 1, 1000])
def test_memory_for_an_image(tail: int) -> None:
    # 10^7 images in a gigabyte leave 100 bytes for each; labels take 8 and the interpreter with NumPy 5.
    images = 1_000_000
    labels = np.zeros(images, dtype=np.int64)
    labels[:tail] = np.arange(1, tail + 1)
    tracemalloc.start()
    try:
        sampler = ClassBalanced().build(labels, seed=0, epochs=2)
        sampler.epoch(0)
        sampler.epoch(1)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak / images < 80


def test_a_long_tail_like_imagenet_lt() -> None:
    times = {}
    for settings in (SquareRoot(), ClassBalanced(), ProgressivelyBalanced()):
        draws = drawn(settings.build(LONG_LABELS, seed=0, epochs=9), 9)
        times[settings.name] = np.bincount(LONG_LABELS[draws], minlength=1000)
    assert times["square_root"][0] / times["square_root"][-1] == pytest.approx(16, rel=0.2)  # √256
    # Four images a visit: every class comes equally often but for the last cycle.
    assert np.ptp(times["class_balanced"]) <= 4
    assert times["progressively_balanced"].min() > 200
