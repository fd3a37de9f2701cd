"""What is read off heads, by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ltrec.errors import UserError
from ltrec.evaluation.calibration import BINS, class_balanced
from ltrec.evaluation.predictions import certainty_from_logits, predict, predictions_from_logits, weight_norms
from ltrec.models.heads import CosineHead, LinearHead, NearestMeanHead, ScaledHead

WEIGHT = torch.tensor([[3.0, 0, 2], [0, 2, 0], [0, 0, 1]])


def test_predictions_of_logits() -> None:
    logits = np.array(
        [[9, 8, 7, 6, 5, 4], [9, 8, 7, 6, 5, 4], [1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]], dtype=np.float32
    )
    read = predictions_from_logits(torch.from_numpy(logits), torch.tensor([4, 5, 4, 5]))
    # The fifth largest counts, the sixth does not; among equals the lower class comes first.
    assert read.predicted.tolist() == [0, 0, 0, 0]
    assert read.in_top5.tolist() == [True, False, True, False]


def test_predictions_of_a_head_over_several_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ltrec.models.heads.base._IMAGES_AT_ONCE", 2)
    read, certainty = predict(LinearHead(WEIGHT, None), torch.eye(3), torch.tensor([0, 1, 2]))
    # Of the third image joint's logits are (2, 0, 1).
    assert read.predicted.tolist() == [0, 1, 0]
    assert read.in_top5.tolist() == [True, True, True]
    # Logits (3, 0, 0), (0, 2, 0) and (2, 0, 1).
    totals = np.exp(3) + 2, np.exp(2) + 2, np.exp(2) + 1 + np.exp(1)
    assert certainty.confidence == pytest.approx([np.exp(3) / totals[0], np.exp(2) / totals[1], np.exp(2) / totals[2]])
    assert certainty.log_likelihood == pytest.approx(np.array([3, 2, 1]) - np.log(totals))


def test_gaps_of_classes_and_bins_by_a_slow_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ltrec.models.heads.base._IMAGES_AT_ONCE", 7)
    random = np.random.default_rng(0)
    labels, features = random.integers(0, 5, 50), random.normal(size=(50, 5)) * 2
    _, certainty = predict(LinearHead(torch.eye(5), None), torch.tensor(features).float(), torch.from_numpy(labels))
    expected = np.zeros((5, BINS))
    for logits, label, weight in zip(features.astype(np.float32), labels, class_balanced(labels), strict=True):
        p = np.exp(logits.astype(np.float64)) / np.exp(logits.astype(np.float64)).sum()
        for j in range(5):
            place = next(b for b in range(BINS) if p[j] <= (b + 1) / BINS)
            expected[j, place] += weight * (p[j] - (j == label))
    np.testing.assert_allclose(certainty.gaps, expected, atol=1e-7)
    assert certainty.gaps.sum() == pytest.approx(0, abs=1e-7)  # probabilities and labels both sum to 1


def test_logits_far_apart_keep_their_order_and_their_likelihood() -> None:
    # The confidences 1 − 2·e^−30 and 1 − 2·e^−31 are both 1 in float32.
    logits = torch.tensor([[30.0, 0, 0], [31.0, 0, 0], [200.0, 0, 0]])
    read = certainty_from_logits(logits, torch.tensor([0, 0, 1]), np.ones(3) / 3)
    assert read.confidence[0] < read.confidence[1] < 1
    assert read.log_likelihood[2] == -200


def test_logits_that_are_not_finite_name_the_head() -> None:
    head = LinearHead(torch.full((3, 3), torch.nan), None)
    with pytest.raises(UserError, match=r"^crt: a logit is not a finite number"):
        predict(head, torch.eye(3), torch.tensor([0, 1, 2]), where="crt")


def test_norms_are_scaled_as_logits_are() -> None:
    expected = [13**0.5, 2.0, 1.0]
    assert weight_norms(LinearHead(WEIGHT, None)) == pytest.approx(expected)
    # LWS: |s_j|·‖w_j‖.
    scaled = ScaledHead(WEIGHT, None, torch.tensor([1.0, -2.0, 3.0]))
    assert weight_norms(scaled) == pytest.approx([13**0.5, 4.0, 3.0])
    # Only the direction of a cosine head's rows counts.
    assert weight_norms(CosineHead(WEIGHT, 30.0)) == pytest.approx([30.0] * 3)
    assert weight_norms(NearestMeanHead(WEIGHT, torch.zeros(3), "un", "euclidean")) is None
