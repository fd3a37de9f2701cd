"""The vector-scaling loss, by hand and by what it is without its factor."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from ltrec.training.losses.logit_adjusted import LogitAdjusted
from ltrec.training.losses.vector_scaling import VectorScaling

COUNTS = np.array([16, 1])
LOGITS, LABELS = torch.tensor([[2.0, 0.0], [0.5, 1.5]]), torch.tensor([0, 1])


def scaled(counts: np.ndarray = COUNTS, **settings: Any) -> torch.Tensor:
    loss: torch.Tensor = VectorScaling(name="vector_scaling", **settings).build(counts)(LOGITS, LABELS)
    return loss


def test_by_hand() -> None:
    # γ = ¼: Δ_1 = 16^¼ = 2, so that z_1/Δ_1 is 0 and 0.75; τ = 1 multiplies e^z by n: 16·e² against 1, and
    # 16·e^0.5 against e^0.75.
    expected = -np.log(118.224898 / 119.224898) - np.log(2.117000 / (26.379540 + 2.117000))
    assert float(scaled(gamma=0.25)) == pytest.approx(expected, abs=1e-6)


def test_without_the_factor_it_is_logit_adjustment() -> None:
    adjusted = LogitAdjusted(name="logit_adjusted", tau=0.7).build(COUNTS)(LOGITS, LABELS)
    torch.testing.assert_close(scaled(gamma=0.0, tau=0.7), adjusted)


def test_with_even_classes_it_is_cross_entropy() -> None:
    plain = torch.nn.functional.cross_entropy(LOGITS, LABELS, reduction="sum")
    torch.testing.assert_close(scaled(counts=np.array([5, 5]), gamma=0.3), plain)


def test_the_published_constants_are_the_defaults() -> None:
    settings = VectorScaling(name="vector_scaling")
    assert (settings.gamma, settings.tau) == (0.05, 1.0)
