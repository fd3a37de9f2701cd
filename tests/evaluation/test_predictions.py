"""What is read off heads, by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ltrec.errors import UserError
from ltrec.evaluation.predictions import predict, predictions_from_logits, weight_norms
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
    read = predict(LinearHead(WEIGHT, None), torch.eye(3), torch.tensor([0, 1, 2]))
    # Of the third image joint's logits are (2, 0, 1).
    assert read.predicted.tolist() == [0, 1, 0]
    assert read.in_top5.tolist() == [True, True, True]


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
    assert weight_norms(CosineHead(WEIGHT, None, 30.0)) == pytest.approx([30.0] * 3)
    assert weight_norms(NearestMeanHead(WEIGHT, torch.zeros(3), "un", "euclidean")) is None
