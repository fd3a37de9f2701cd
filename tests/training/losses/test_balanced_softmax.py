"""Balanced softmax is logit adjustment at τ = 1."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ltrec.training.losses.balanced_softmax import BalancedSoftmax
from ltrec.training.losses.logit_adjusted import LogitAdjusted

COUNTS = np.array([3, 1])
LOGITS, LABELS = torch.tensor([[2.0, 0.0], [0.5, 1.5]]), torch.tensor([0, 1])


def test_by_hand() -> None:
    # Ren et al. 2020: n_y·e^z_y / Σ n_j·e^z_j: 3·e² / (3·e² + 1) and e^1.5 / (3·e^0.5 + e^1.5).
    expected = -np.log(22.167168 / 23.167168) - np.log(4.481689 / (4.946164 + 4.481689))
    loss = BalancedSoftmax(name="balanced_softmax").build(COUNTS)
    assert float(loss(LOGITS, LABELS)) == pytest.approx(expected, abs=1e-6)


def test_it_is_logit_adjustment_at_1() -> None:
    balanced = BalancedSoftmax(name="balanced_softmax").build(COUNTS)(LOGITS, LABELS)
    assert torch.equal(balanced, LogitAdjusted(name="logit_adjusted", tau=1.0).build(COUNTS)(LOGITS, LABELS))
