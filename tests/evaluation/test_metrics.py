"""Figures against hand-computed numbers, intervals and tests against slow or written-out ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, f1_score

from ltrec.evaluation import metrics
from ltrec.evaluation.metrics import (
    FIGURES,
    Pairing,
    Predictions,
    bootstrap,
    confusion,
    holm,
    mcnemar,
    per_class_accuracy,
    predictions,
    score,
)

if TYPE_CHECKING:
    from ltrec.evaluation.metrics import Integers, Intervals

# Six classes: two many, one medium, three few; class 5 has no test images.
GROUPS = np.array(["many", "many", "medium", "few", "few", "few"])
LABELS = np.array([0, 0, 0, 0, 1, 1, 2, 2, 3, 4])
PREDICTED = np.array([0, 0, 0, 1, 1, 1, 2, 0, 5, 4])
TOP5 = np.array([True, True, True, True, True, True, True, True, False, True])
GIVEN = Predictions(PREDICTED, TOP5)


def intervals(labels: Integers, given: Predictions, *, resamples: int, seed: int = 0) -> Intervals:
    return bootstrap(labels, {"one": given}, GROUPS, resamples=resamples, seed=seed)["one"]


def test_accuracy_per_class_is_nan_without_test_images() -> None:
    # 3 of 4, 2 of 2, 1 of 2, 0 of 1, 1 of 1, none.
    np.testing.assert_array_equal(per_class_accuracy(LABELS, PREDICTED, 6), [0.75, 1, 0.5, 0, 1, np.nan])


def test_confusion_counts_true_by_predicted() -> None:
    expected = np.zeros((6, 6), dtype=int)
    expected[0, 0], expected[0, 1], expected[1, 1], expected[2, 2] = 3, 1, 2, 1
    expected[2, 0], expected[3, 5], expected[4, 4] = 1, 1, 1
    np.testing.assert_array_equal(confusion(LABELS, PREDICTED, 6).toarray(), expected)
    # As many classes as iNaturalist has: dense, it would take half a gigabyte.
    assert confusion(LABELS, PREDICTED, 8142).nnz == 7


def test_score_by_hand() -> None:
    figures = score(LABELS, GIVEN, GROUPS)
    # F1 = 2·TP / (test images + predictions of the class): 6/8, 4/5, 2/3, 0/1, 2/2; class 5 has none.
    assert figures == pytest.approx({
        "many": (0.75 + 1) / 2,
        "medium": 0.5,
        "few": (0 + 1) / 2,
        "all": 7 / 10,
        "top5": 9 / 10,
        "balanced": (0.75 + 1 + 0.5 + 0 + 1) / 5,
        "macro_f1": (6 / 8 + 4 / 5 + 2 / 3 + 0 + 1) / 5,
    })  # fmt: skip


def test_score_agrees_with_scikit_learn() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 8, 300)
    predicted = np.where(random.random(300) < 0.6, labels, random.integers(0, 8, 300))
    figures = score(labels, Predictions(predicted, np.ones(300, dtype=bool)), np.full(8, "few"))
    assert figures["balanced"] == pytest.approx(balanced_accuracy_score(labels, predicted))
    assert figures["macro_f1"] == pytest.approx(f1_score(labels, predicted, average="macro"))


def test_order_of_the_images_does_not_matter() -> None:
    shuffled = np.random.default_rng(1).permutation(len(LABELS))
    assert score(LABELS[shuffled], Predictions(PREDICTED[shuffled], TOP5[shuffled]), GROUPS) == score(
        LABELS, GIVEN, GROUPS
    )


def test_empty_group_has_no_figure() -> None:
    # Class 2 is the only medium one, and here it has no test images.
    keep = LABELS != 2
    given = Predictions(PREDICTED[keep], TOP5[keep])
    assert score(LABELS[keep], given, GROUPS)["medium"] is None
    assert intervals(LABELS[keep], given, resamples=10)["medium"] is None


def test_top5_says_nothing_among_five_classes() -> None:
    labels = np.array([0, 1, 4])
    figures = score(labels, Predictions(labels, np.ones(3, dtype=bool)), np.full(5, "few"))
    assert figures["top5"] is None
    assert figures["all"] == 1


def test_answers_read_off_logits() -> None:
    logits = np.array(
        [[9, 8, 7, 6, 5, 4], [9, 8, 7, 6, 5, 4], [1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]], dtype=np.float32
    )
    given = predictions(torch.from_numpy(logits), torch.tensor([4, 5, 4, 5]))
    # The fifth largest counts, the sixth does not; among equals the lower class comes first.
    assert given.predicted.tolist() == [0, 0, 0, 0]
    assert given.in_top5.tolist() == [True, False, True, False]


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
    found = intervals(labels, given, resamples=50)
    assert found["all"] == [0.5, 0.5]
    assert found["many"] == [1, 1]
    assert found["few"] == [0, 0]


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
    monkeypatch.setattr(metrics, "_CELLS_AT_ONCE", 4 * len(LABELS))
    assert intervals(LABELS, GIVEN, resamples=37) == whole


def test_no_resamples_no_intervals() -> None:
    assert set(intervals(LABELS, GIVEN, resamples=0).values()) == {None}


def test_mcnemar_by_hand() -> None:
    # 6 images only the variant got right, 1 only joint did, 5 both, 2 none.
    variant = np.array([True] * 6 + [False] + [True] * 5 + [False] * 2)
    joint = np.array([False] * 6 + [True] + [True] * 5 + [False] * 2)
    # P(≤ 1 or ≥ 6 of 7 heads) = 2·(C(7,0) + C(7,1)) / 2⁷ = 16/128.
    assert mcnemar(variant, joint) == Pairing(6, 1, pytest.approx(0.125))
    assert mcnemar(joint, variant) == Pairing(1, 6, pytest.approx(0.125))


def test_mcnemar_of_equal_heads() -> None:
    right = np.array([True, False, True])
    assert mcnemar(right, right) == Pairing(0, 0, 1.0)


def test_holm_by_hand() -> None:
    # Sorted 0.01·4, 0.02·3, 0.03·2, 0.6·1; the third may not fall below the second.
    assert holm([0.03, 0.01, 0.6, 0.02]) == pytest.approx([0.06, 0.04, 0.6, 0.06])
    assert holm([0.7, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
