"""Figures against hand-computed numbers and scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, f1_score

from ltrec.evaluation.metrics import confusion, per_class_accuracy, score
from ltrec.evaluation.predictions import Predictions

# Six classes: two many, one medium, three few; class 5 has no test images.
GROUPS = np.array(["many", "many", "medium", "few", "few", "few"])
LABELS = np.array([0, 0, 0, 0, 1, 1, 2, 2, 3, 4])
PREDICTED = np.array([0, 0, 0, 1, 1, 1, 2, 0, 5, 4])
TOP5 = np.array([True, True, True, True, True, True, True, True, False, True])
GIVEN = Predictions(PREDICTED, TOP5)


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


def test_top5_says_nothing_among_five_classes() -> None:
    labels = np.array([0, 1, 4])
    figures = score(labels, Predictions(labels, np.ones(3, dtype=bool)), np.full(5, "few"))
    assert figures["top5"] is None
    assert figures["all"] == 1
