"""The focal loss, by hand; and where an image is classified beyond doubt."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ltrec.training.losses.focal import Focal

COUNTS = np.array([3, 1])


def test_by_hand() -> None:
    # Logits 2 and 0: p is 0.880797 and 0.119203, −log p 0.126928 and 2.126928.
    loss = Focal(name="focal").build(COUNTS)
    expected = 0.119203**2 * 0.126928 + 0.880797**2 * 2.126928
    logits = torch.tensor([[2.0, 0.0], [2.0, 0.0]])
    assert float(loss(logits, torch.tensor([0, 1]))) == pytest.approx(expected, abs=1e-6)


def test_without_focus_it_is_cross_entropy() -> None:
    logits, labels = torch.randn(9, 4, generator=torch.Generator().manual_seed(0)), torch.arange(9) % 4
    loss = Focal(name="focal", gamma=0.0).build(np.ones(4, dtype=np.int64))(logits, labels)
    torch.testing.assert_close(loss, F.cross_entropy(logits, labels, reduction="sum"))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_beyond_doubt_the_gradient_is_0(gamma: float) -> None:
    logits = torch.tensor([[200.0, 0.0], [20.0, 0.0]], requires_grad=True)
    loss = Focal(name="focal", gamma=gamma).build(COUNTS)(logits, torch.tensor([0, 0]))
    loss.backward()
    assert logits.grad is not None
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert logits.grad.abs().max() < 1e-6
