"""Logit adjustment, by hand and by its identities; and where it would correct twice."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from ltrec.rebalancing.methods.base import HeadTrainingSettings
from ltrec.training.losses.logit_adjusted import LogitAdjusted

COUNTS = np.array([3, 1])
LOGITS, LABELS = torch.tensor([[2.0, 0.0], [0.5, 1.5]]), torch.tensor([0, 1])


def adjusted(counts: np.ndarray = COUNTS, **settings: Any) -> torch.Tensor:
    loss: torch.Tensor = LogitAdjusted(name="logit_adjusted", **settings).build(counts)(LOGITS, LABELS)
    return loss


def test_by_hand() -> None:
    # softmax(z + log π)_y = π_y·e^z_y / Σ π_j·e^z_j:
    # 0.75·e² / (0.75·e² + 0.25) and 0.25·e^1.5 / (0.75·e^0.5 + 0.25·e^1.5).
    expected = -np.log(5.541792 / 5.791792) - np.log(1.120422 / (1.236541 + 1.120422))
    assert float(adjusted()) == pytest.approx(expected, abs=1e-6)


def test_balanced_softmax_is_the_same() -> None:
    # Ren et al. 2020 add log n_j: the same for every class less, and the softmax does not see it.
    balanced = F.cross_entropy(LOGITS + torch.tensor([3.0, 1.0]).log(), LABELS, reduction="sum")
    torch.testing.assert_close(adjusted(), balanced)


def test_without_tau_or_with_even_classes_it_is_cross_entropy() -> None:
    plain = F.cross_entropy(LOGITS, LABELS, reduction="sum")
    torch.testing.assert_close(adjusted(tau=0.0), plain)
    torch.testing.assert_close(adjusted(counts=np.array([5, 5]), tau=2.0), plain)


@pytest.mark.parametrize("loss", ["logit_adjusted", "balanced_softmax", "vector_scaling", "ldam"])
@pytest.mark.parametrize("sampler", ["class_balanced", "square_root", "progressively_balanced"])
def test_balanced_draws_would_correct_twice(sampler: str, loss: str) -> None:
    given: dict[str, Any] = {"loss": {"name": loss}, "sampler": {"name": sampler}}
    with pytest.raises(ValidationError, match=f"{loss} makes up .* sampler {sampler}; allowed: .*twice: true"):
        HeadTrainingSettings.model_validate(given)
    given["loss"]["twice"] = True
    HeadTrainingSettings.model_validate(given)
