"""Profiles by hand, and which images a cut keeps."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from ltrec.data.contents import Contents
from ltrec.data.drawing import Draw
from ltrec.data.image_lists import ImageList, make_list
from ltrec.data.long_tail import LongTailSettings, cut
from ltrec.errors import UserError

PROFILE: TypeAdapter[Any] = TypeAdapter(LongTailSettings)


def profile(name: str, imbalance_factor: float, **more: object) -> Any:
    return PROFILE.validate_python({"profile": name, "imbalance_factor": imbalance_factor, **more})


def by_path(seed: int) -> Draw:
    return Draw(seed, Contents(None))


def images(*counts: int) -> ImageList:
    return make_list([(f"{label}/{n}.png", label) for label, count in enumerate(counts) for n in range(count)])


@pytest.mark.parametrize(
    ("n_max", "imbalance_factor", "sizes"),
    [
        (5000, 100, [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]),  # CIFAR-10-LT
        (5000, 50, [5000, 3237, 2096, 1357, 878, 568, 368, 238, 154, 100]),
        (5000, 10, [5000, 3871, 2997, 2320, 1796, 1391, 1077, 834, 645, 500]),
        (120, 30, [120, 82, 56, 38, 26, 18, 12, 8, 5, 4]),
        (7, 1, [7] * 10),
    ],
)
def test_exponential(n_max: int, imbalance_factor: float, sizes: list[int]) -> None:
    assert profile("exponential", imbalance_factor).sizes(n_max, 10).tolist() == sizes


@pytest.mark.parametrize("alpha", [0.1, 100])
def test_pareto_at_the_ends_of_alpha(alpha: float) -> None:
    sizes = profile("pareto", 100, alpha=alpha).sizes(1000, 10_000)
    assert (sizes[0], sizes[-1]) == (1000, 10)
    assert (sizes[:-1] >= sizes[1:]).all()


@pytest.mark.parametrize("alpha", [0.01, 101])
def test_pareto_beyond_them_is_refused(alpha: float) -> None:
    with pytest.raises(ValidationError):
        profile("pareto", 100, alpha=alpha)


@pytest.mark.parametrize(
    ("imbalance_factor", "last", "total"),
    [(100, 5, 10847), (50, 10, 12608), (10, 50, 19573)],  # as published for CIFAR-100-LT
)
def test_exponential_of_cifar_100_in_total(imbalance_factor: int, last: int, total: int) -> None:
    sizes = profile("exponential", imbalance_factor).sizes(500, 100)
    assert (sizes[0], sizes[-1], sizes.sum()) == (500, last, total)


@pytest.mark.parametrize(("n_max", "classes"), [(5000, 10), (500, 100)])
@pytest.mark.parametrize("imbalance_factor", [10, 20, 50, 100, 200, 256])
def test_what_mends_floating_point_changes_no_benchmark(n_max: int, classes: int, imbalance_factor: int) -> None:
    as_the_field = [int(n_max * imbalance_factor ** (-j / (classes - 1.0))) for j in range(classes)]
    assert profile("exponential", imbalance_factor).sizes(n_max, classes).tolist() == as_the_field


def test_exponential_is_exact_where_floating_point_is_not() -> None:
    assert int(49 * 49**-1.0) == 0
    assert profile("exponential", 49).sizes(49, 2).tolist() == [49, 1]
    # √16 = 4, √4 = 2: powers that come out whole must not lose one.
    assert profile("exponential", 16).sizes(1600, 3).tolist() == [1600, 400, 100]
    assert profile("exponential", 1000).sizes(1000, 4).tolist() == [1000, 100, 10, 1]


def test_pareto_by_hand() -> None:
    # α = 1, C = 4: q = 4, 2, 4/3, 1, so (q − 1)/(q_0 − 1) = 1, 1/3, 1/9, 0 of 90 above 10.
    assert profile("pareto", 10, alpha=1.0).sizes(100, 4).tolist() == [100, 40, 20, 10]


def test_pareto_comes_close_to_imagenet_lt() -> None:
    sizes = profile("pareto", 256).sizes(1280, 1000)
    assert (sizes[0], sizes[-1]) == (1280, 5)
    assert (sizes[:-1] >= sizes[1:]).all()
    assert sizes.sum() == pytest.approx(115_846, rel=0.06)


def test_step() -> None:
    assert profile("step", 10).sizes(50, 5).tolist() == [50, 50, 5, 5, 5]
    assert profile("step", 10, head=0.8).sizes(50, 5).tolist() == [50, 50, 50, 50, 5]
    assert profile("step", 10, head=0.99).sizes(50, 2).tolist() == [50, 5]
    assert profile("step", 49, head=0.01).sizes(49, 3).tolist() == [49, 1, 1]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"profile": "exponential", "imbalance_factor": 0.5}, "greater than or equal to 1"),
        ({"profile": "exponential", "imbalance_factor": 30, "n_max": 20}, "rarest class would keep no image"),
        ({"profile": "zipf", "imbalance_factor": 30}, "'exponential', 'pareto', 'step'"),
        ({"profile": "step", "imbalance_factor": 30, "head": 1.0}, "less than 1"),
        ({"profile": "pareto", "imbalance_factor": 30, "alpha": 0.0}, "greater than or equal to 0.1"),
        ({"profile": "exponential", "imbalance_factor": 30, "alpha": 6.0}, "Extra inputs"),
    ],
)
def test_settings_that_make_no_sense(given: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        PROFILE.validate_python(given)


def test_a_cut_keeps_so_many_of_each_class_drawn_by_seed() -> None:
    whole = images(100, 100, 100)
    settings = profile("exponential", 16, n_max=80)
    kept, asked = cut(whole, 3, settings, by_path(0))
    assert asked.tolist() == [80, 20, 5]
    assert kept.counts(3).tolist() == [80, 20, 5]
    assert set(kept.paths) < set(whole.paths)
    assert cut(whole, 3, settings, by_path(0))[0].paths == kept.paths
    assert cut(whole, 3, settings, by_path(1))[0].paths != kept.paths


def test_a_class_with_fewer_keeps_what_it_has() -> None:
    kept, asked = cut(images(100, 7, 100), 3, profile("exponential", 16, n_max=80), by_path(0))
    assert asked.tolist() == [80, 20, 5]
    assert kept.counts(3).tolist() == [80, 7, 5]


def test_n_max_is_by_default_what_the_classes_can_supply() -> None:
    # Sizes are n, ⌊n/4⌋, ⌊n/16⌋: the second class's 9 images allow n up to 39, where ⌊39/4⌋ = 9.
    kept, _ = cut(images(100, 9, 100), 3, profile("exponential", 16), by_path(0))
    assert kept.counts(3).tolist() == [39, 9, 2]
    kept, _ = cut(images(33, 100, 100), 3, profile("exponential", 16), by_path(0))
    assert kept.counts(3).tolist() == [33, 8, 2]


def test_an_imbalance_factor_that_the_classes_cannot_supply() -> None:
    with pytest.raises(UserError, match="cannot supply an imbalance factor of 16: the largest has 12 training images"):
        cut(images(12, 5, 5), 3, profile("exponential", 16), by_path(0))
    with pytest.raises(UserError, match="cannot supply an imbalance factor"):
        cut(images(5, 100, 100), 3, profile("exponential", 16), by_path(0))


def test_the_order_of_classes() -> None:
    whole = images(10, 200, 90)
    kept, _ = cut(whole, 3, profile("exponential", 16, n_max=160, order="size"), by_path(0))
    assert kept.counts(3).tolist() == [10, 160, 40]
    orders = {
        tuple(cut(images(90, 90, 90), 3, profile("step", 9, n_max=90, order="random"), by_path(s))[1]) for s in range(8)
    }
    assert len(orders) > 1
    assert {tuple(sorted(order)) for order in orders} == {(10, 90, 90)}
