"""Calibration and abstention by hand."""

from __future__ import annotations

import numpy as np
import pytest

from ltrec.evaluation import calibration
from ltrec.evaluation.calibration import BINS, Certainty, ReliabilityBin, bin_of, class_balanced, judge

SAME = np.full(4, 0.25)


def test_every_class_weighs_the_same() -> None:
    # Three images of class 0, one of class 2, none of class 1: each of the two classes has a half.
    assert class_balanced(np.array([0, 0, 2, 0])) == pytest.approx([1 / 6, 1 / 6, 1 / 2, 1 / 6])
    assert class_balanced(np.array([1, 0, 1, 0])) == pytest.approx([1 / 4] * 4)


def test_a_bin_holds_its_upper_end() -> None:
    assert bin_of(np.array([0.0, 0.01, 0.2, 0.21, 1.0])).tolist() == [0, 0, 2, 3, BINS - 1]


def test_reliability_and_its_error_by_hand() -> None:
    confidence, right = np.array([0.91, 0.93, 0.5, 1.0]), np.array([True, False, True, True])
    bins = calibration.reliability(confidence, right, SAME)
    # Bins end at 8/15 = .533, 14/15 = .933 and 1.
    assert bins == [
        ReliabilityBin(7 / 15, 8 / 15, 0.25, 0.5, 1.0),
        ReliabilityBin(13 / 15, 14 / 15, 0.5, pytest.approx(0.92), 0.5),
        ReliabilityBin(14 / 15, 1.0, 0.25, 1.0, 1.0),
    ]
    # ¼·.5 + ½·.42 + ¼·0.
    assert calibration.expected_calibration_error(bins) == pytest.approx(0.335)


def test_class_wise_error_is_the_mean_over_classes() -> None:
    # Class 0 is 0.1 too sure in one bin and 0.2 too little in another: they do not cancel out.
    gaps = np.zeros((2, BINS))
    gaps[0, 3], gaps[0, 9], gaps[1, 0] = 0.1, -0.2, 0.1
    assert calibration.classwise_calibration_error(gaps) == pytest.approx((0.3 + 0.1) / 2)


def test_risk_and_coverage_by_hand() -> None:
    confidence, right = np.array([0.6, 0.9, 0.7, 0.8]), np.array([False, True, True, False])
    curve = calibration.risk_coverage(confidence, right, SAME)
    # From the surest on: right, wrong, right, wrong.
    assert curve.coverage == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert curve.risk == pytest.approx([0, 1 / 2, 1 / 3, 1 / 2])
    assert curve.aurc == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)


def test_images_of_one_confidence_are_accepted_together() -> None:
    for right in ([True, False, True, False], [False, True, False, True]):
        curve = calibration.risk_coverage(np.array([0.9, 0.9, 0.5, 0.5]), np.array(right), SAME)
        assert curve.coverage == pytest.approx([0.5, 1.0])
        assert curve.risk == pytest.approx([0.5, 0.5])
        assert curve.aurc == pytest.approx(0.5)


def test_a_head_that_is_always_right_or_says_nothing() -> None:
    sure, unsure = np.full(4, 1.0), np.full(4, 0.5)
    assert calibration.risk_coverage(sure, np.ones(4, dtype=bool), SAME).aurc == 0
    half = np.array([True, False, True, False])
    assert calibration.expected_calibration_error(calibration.reliability(unsure, half, SAME)) == 0
    assert calibration.expected_calibration_error(calibration.reliability(sure, half, SAME)) == 0.5


def test_all_figures_on_an_uneven_test() -> None:
    # Class 0 has three images, all right at 0.9; the one of class 1 is taken for class 0 at 0.9: it weighs a half.
    labels = np.array([0, 0, 0, 1])
    certainty = Certainty(np.full(4, 0.9), np.log([0.9, 0.9, 0.9, 0.1]), np.zeros((3, BINS)))
    certainty.gaps[:2, 13] = 0.4, -0.2
    certainty.gaps[2, 0] = 99.0  # a class without test images
    found = judge(certainty, labels == 0, labels)
    assert found.figures == {
        "nll": pytest.approx(-(np.log(0.9) + np.log(0.1)) / 2), "ece": pytest.approx(0.4),
        "classwise_ece": pytest.approx(0.3), "aurc": pytest.approx(0.5),
    }  # fmt: skip
    assert found.reliability == [ReliabilityBin(13 / 15, 14 / 15, 1.0, pytest.approx(0.9), 0.5)]
