"""Intervals against a slow bootstrap, tests against written-out numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from sklearn.metrics import f1_score

from ltrec.evaluation import statistics
from ltrec.evaluation.metrics import FIGURES
from ltrec.evaluation.predictions import Predictions
from ltrec.evaluation.statistics import Comparison, bootstrap, compare, holm, mcnemar, paired_t, t_interval

if TYPE_CHECKING:
    from ltrec.evaluation.metrics import Integers
    from ltrec.evaluation.statistics import Intervals

# Six classes: two many, one medium, three few; class 5 has no test images.
GROUPS = np.array(["many", "many", "medium", "few", "few", "few"])
LABELS = np.array([0, 0, 0, 0, 1, 1, 2, 2, 3, 4])
PREDICTED = np.array([0, 0, 0, 1, 1, 1, 2, 0, 5, 4])
TOP5 = np.array([True, True, True, True, True, True, True, True, False, True])
GIVEN = Predictions(PREDICTED, TOP5)


def intervals(labels: Integers, given: Predictions, *, resamples: int, seed: int = 0) -> Intervals:
    return bootstrap(labels, {"one": given}, GROUPS, resamples=resamples, seed=seed)["one"]


@pytest.mark.slow
def test_bootstrap_against_a_slow_one() -> None:
    random = np.random.default_rng(3)
    labels = np.repeat(np.arange(6), [40, 40, 30, 20, 20, 10])
    predicted = np.where(random.random(len(labels)) < 0.7, labels, random.integers(0, 6, len(labels)))
    given = Predictions(predicted, random.random(len(labels)) < 0.9)
    fast = intervals(labels, given, resamples=4000)

    drawn: dict[str, list[float]] = {name: [] for name in FIGURES}
    for _ in range(1500):
        images = np.concatenate(
            [random.choice(np.flatnonzero(labels == label), (labels == label).sum()) for label in range(6)]
        )
        accuracy = np.array(
            [(predicted[images] == labels[images])[labels[images] == label].mean() for label in range(6)]
        )
        for group in ("many", "medium", "few"):
            drawn[group].append(accuracy[group == GROUPS].mean())
        drawn["all"].append((predicted[images] == labels[images]).mean())
        drawn["top5"].append(given.in_top5[images].mean())
        drawn["balanced"].append(accuracy.mean())
        drawn["macro_f1"].append(f1_score(labels[images], predicted[images], average="macro"))
    for name in FIGURES:
        # Both ends carry Monte Carlo error; widths here are 0.1 to 0.3.
        assert fast[name] == pytest.approx(np.percentile(drawn[name], [2.5, 97.5]), abs=0.015), name


def test_bootstrap_keeps_every_class_as_large_as_it_is() -> None:
    # One image a class: every resample is the test split itself.
    labels = np.arange(6)
    given = Predictions(np.array([0, 1, 2, 0, 0, 0]), np.ones(6, dtype=bool))
    drawn = intervals(labels, given, resamples=50)
    assert drawn["all"] == [0.5, 0.5]
    assert drawn["many"] == [1, 1]
    assert drawn["few"] == [0, 0]


def test_a_group_without_test_images_has_no_interval() -> None:
    keep = LABELS != 2
    predictions = Predictions(PREDICTED[keep], TOP5[keep])
    assert intervals(LABELS[keep], predictions, resamples=10)["medium"] is None


def test_bootstrap_repeats_with_its_seed() -> None:
    first, again, other = (intervals(LABELS, GIVEN, resamples=37, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_all_variants_are_judged_on_the_same_resamples() -> None:
    other = Predictions(np.roll(PREDICTED, 1), ~TOP5)
    both = bootstrap(LABELS, {"one": GIVEN, "other": other}, GROUPS, resamples=37, seed=0)
    assert both == {"one": intervals(LABELS, GIVEN, resamples=37), "other": intervals(LABELS, other, resamples=37)}


def test_resamples_do_not_depend_on_how_many_are_made_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = intervals(LABELS, GIVEN, resamples=37)
    monkeypatch.setattr(statistics, "_CELLS_AT_ONCE", 4 * len(LABELS))
    assert intervals(LABELS, GIVEN, resamples=37) == whole


def test_no_resamples_no_intervals() -> None:
    assert set(intervals(LABELS, GIVEN, resamples=0).values()) == {None}


def test_mcnemar_by_hand() -> None:
    # 6 images only the variant got right, 1 only joint did, 5 both, 2 none.
    variant = np.array([True] * 6 + [False] + [True] * 5 + [False] * 2)
    joint = np.array([False] * 6 + [True] + [True] * 5 + [False] * 2)
    # P(≤ 1 or ≥ 6 of 7 heads) = 2·(C(7,0) + C(7,1)) / 2⁷ = 16/128.
    assert mcnemar(variant, joint) == (6, 1, pytest.approx(0.125))
    assert mcnemar(joint, variant) == (1, 6, pytest.approx(0.125))


def test_mcnemar_of_equal_heads() -> None:
    right = np.array([True, False, True])
    assert mcnemar(right, right) == (0, 0, 1.0)


def test_holm_by_hand() -> None:
    # Sorted 0.01·4, 0.02·3, 0.03·2, 0.6·1; the third may not fall below the second.
    assert holm([0.03, 0.01, 0.6, 0.02]) == pytest.approx([0.06, 0.04, 0.6, 0.06])
    assert holm([0.7, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_every_variant_is_compared_with_joint() -> None:
    right = {"crt": np.array([True] * 4), "joint": np.array([True, False, False, False]), "ncm": np.array([True] * 4)}
    # Three images that joint alone got wrong: p = 2 / 2³ for either; Holm doubles it.
    expected = Comparison(better=3, worse=0, p_value=pytest.approx(0.25), p_holm=pytest.approx(0.5))
    assert compare(right, "joint") == {"crt": expected, "ncm": expected}
    assert compare(right, None) == {}


def test_the_interval_over_seeds_is_students() -> None:
    # 1, 2, 3: mean 2, s = 1; t(0.975, 2) = 4.302653 (tables); 4.302653 · 1 / √3 = 2.484138.
    found = t_interval([0.01, 0.02, 0.03])
    assert (found.mean, found.half_width, found.seeds) == (
        pytest.approx(0.02), pytest.approx(0.02484138, rel=1e-6), 3,
    )  # fmt: skip
    # Two seeds: s / √2 is half their distance; t(0.975, 1) = 12.706205.
    assert t_interval([0.5, 0.6]).half_width == pytest.approx(12.706205 * 0.05)
    # 0.1 + 0.2 is not 0.3 to the last bit, but there is no spread in that.
    assert t_interval([0.3, 0.1 + 0.2]).half_width == 0.0


def test_the_paired_test_is_of_the_differences() -> None:
    # Differences 0.1, 0.2, 0.3: t = 0.2 / (0.1 / √3) = 3.4641 with 2 degrees of freedom, where the distribution has a
    # closed form: P(|T| > t) = 1 − t / √(2 + t²) = 1 − 3.4641 / √14 = 0.0741799.
    found = paired_t([0.6, 0.9, 0.8], [0.5, 0.7, 0.5])
    assert found.mean == pytest.approx(0.2)
    assert found.half_width == pytest.approx(0.2484138, rel=1e-6)
    assert found.p_value == pytest.approx(1 - 12**0.5 / 14**0.5, rel=1e-9)
    # What all seeds share falls out: unpaired, seeds that differ by 0.4 would hide 0.2.
    assert paired_t([0.2, 0.6], [0.5, 0.9]).p_value is None, "equal differences have no spread to judge by"
    assert paired_t([0.2, 0.6], [0.2, 0.6]).p_value == 1.0


def test_the_paired_test_against_scipys() -> None:
    from scipy.stats import ttest_rel

    random = np.random.default_rng(0)
    one, other = random.random(7), random.random(7)
    theirs = ttest_rel(one, other)
    ours = paired_t(one.tolist(), other.tolist())
    low, high = theirs.confidence_interval(0.95)
    assert ours.p_value == pytest.approx(theirs.pvalue)
    assert (ours.mean - ours.half_width, ours.mean + ours.half_width) == pytest.approx((low, high))
