"""Cross-entropy, by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ltrec.training.losses.cross_entropy import CrossEntropy

COUNTS = np.array([3, 1])


def test_plain() -> None:
    # log(e² + 1) = 2.126928: less the logit of the label.
    loss = CrossEntropy().build(COUNTS)
    logits = torch.tensor([[2.0, 0.0], [2.0, 0.0]])
    assert float(loss(logits, torch.tensor([0, 1]))) == pytest.approx(0.126928 + 2.126928, abs=1e-6)


def test_smoothed() -> None:
    # The target of label 1 is (0.1, 0.9).
    loss = CrossEntropy(label_smoothing=0.2).build(COUNTS)
    expected = 0.1 * 0.126928 + 0.9 * 2.126928
    assert float(loss(torch.tensor([[2.0, 0.0]]), torch.tensor([1]))) == pytest.approx(expected, abs=1e-6)
