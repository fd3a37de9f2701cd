"""Class weights: by hand, exact where they start, and refused where draws are balanced already."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from ltrec.rebalancing.methods.base import HeadTrainingSettings
from ltrec.training.losses.class_weights import ClassWeights
from ltrec.training.losses.cross_entropy import CrossEntropy

if TYPE_CHECKING:
    from ltrec.training.losses.module import LossModule

COUNTS = np.array([3, 1])
LOGITS, LABELS = torch.tensor([[2.0, 0.0]]), torch.tensor([1])
# β = ½: effective numbers 2·(1 − ⅛) = 7/4 and 1, weights 4/7 and 1; over 3 + 1 images their mean is
# (3·4/7 + 1)/4 = 19/28, so that the weights are 16/19 and 28/19.
WEIGHTS = [16 / 19, 28 / 19]
PLAIN = 2.126928


def test_by_hand() -> None:
    assert ClassWeights(beta=0.5).weights(COUNTS) == pytest.approx(WEIGHTS)


@pytest.mark.parametrize("beta", [1e-9, 0.9, 0.9999, 1 - 1e-12])
def test_the_mean_weight_of_an_image_is_1(beta: float) -> None:
    counts = np.array([5000, 300, 20, 1])
    weights = ClassWeights(beta=beta).weights(counts)
    assert (counts * weights).sum() / counts.sum() == pytest.approx(1)
    # Cui et al.: (1 − β)/(1 − β^n), compared by ratios to the rarest class.
    reference = [(1 - beta) / -np.expm1(n * np.log1p(beta - 1)) for n in counts]
    assert weights / weights[-1] == pytest.approx(np.array(reference) / reference[-1])


def test_at_the_ends_classes_weigh_the_same_or_as_1_over_n() -> None:
    assert ClassWeights(beta=1e-12).weights(COUNTS) == pytest.approx([1, 1])
    assert ClassWeights(beta=1 - 1e-12).weights(COUNTS) == pytest.approx([2 / 3, 2])


def loss(**weights: Any) -> LossModule:
    return CrossEntropy(class_weights=ClassWeights(beta=0.5, **weights)).build(COUNTS)


@pytest.mark.parametrize(
    ("start", "epochs", "first"),
    [
        (0.0, 10, 0),
        (0.8, 200, 160),
        (0.29, 100, 29),  # 0.29 · 100 is 28.999999999999996 in binary
        (0.55, 100, 55),  # and 0.55 · 100 55.00000000000001
        (0.5, 5, 2),  # begins within the third epoch
        (0.99, 10, 9),
        (0.8, 1, 0),
    ],
)
def test_they_start_with_an_epoch_and_stay(start: float, epochs: int, first: int) -> None:
    module = loss(start=start)
    for epoch in {0, max(first - 1, 0), first, epochs - 1}:
        module.start_epoch(epoch, epochs)
        expected = PLAIN * (WEIGHTS[1] if epoch >= first else 1)
        assert float(module(LOGITS, LABELS)) == pytest.approx(expected, abs=1e-6), epoch


def test_an_epoch_depends_on_none_before_it() -> None:
    module = loss(start=0.5)
    module.start_epoch(9, 10)
    module.start_epoch(0, 10)
    assert float(module(LOGITS, LABELS)) == pytest.approx(PLAIN, abs=1e-6)


def test_before_any_epoch_it_is_as_in_the_first() -> None:
    assert float(loss()(LOGITS, LABELS)) == pytest.approx(PLAIN * WEIGHTS[1], abs=1e-6)
    assert float(loss(start=0.1)(LOGITS, LABELS)) == pytest.approx(PLAIN, abs=1e-6)


@pytest.mark.parametrize("name", ["cross_entropy", "focal", "label_aware_smoothing"])
def test_balanced_draws_would_correct_twice(name: str) -> None:
    given: dict[str, Any] = {"loss": {"name": name, "class_weights": {}}, "sampler": {"name": "class_balanced"}}
    with pytest.raises(ValidationError, match=r"so does the sampler class_balanced; allowed: .*twice: true in them"):
        HeadTrainingSettings.model_validate(given)
    given["loss"]["class_weights"]["twice"] = True
    HeadTrainingSettings.model_validate(given)
    given = {"loss": {"name": name, "class_weights": {"start": 0.8}}, "sampler": {"name": "instance_balanced"}}
    HeadTrainingSettings.model_validate(given)


@pytest.mark.parametrize("weights", [{"beta": 0.0}, {"beta": 1.0}, {"start": 1.0}, {"start": -0.1}])
def test_limits(weights: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        ClassWeights.model_validate(weights)
