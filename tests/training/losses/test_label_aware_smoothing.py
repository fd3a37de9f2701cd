"""Label-aware smoothing: how much by class, by hand, and what it is when all classes are smoothed alike."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ltrec.rebalancing.methods.base import HeadTrainingSettings
from ltrec.training.losses.cross_entropy import CrossEntropy
from ltrec.training.losses.label_aware_smoothing import LabelAwareSmoothing

COUNTS = np.array([101, 34.333333, 1])  # the second is a third of the way: sin(π/6) = ½


def smoothing(counts: np.ndarray, head: float = 0.4, tail: float = 0.1) -> list[float]:
    loss = LabelAwareSmoothing(name="label_aware_smoothing", head=head, tail=tail).build(counts)
    smoothed: list[float] = loss.smoothing.tolist()
    return smoothed


def test_the_frequent_are_smoothed_most() -> None:
    assert smoothing(COUNTS) == pytest.approx([0.4, 0.25, 0.1])
    assert smoothing(COUNTS, tail=0.0) == pytest.approx([0.4, 0.2, 0.0], abs=1e-7)


def test_classes_of_one_size_are_smoothed_as_the_largest() -> None:
    assert smoothing(np.array([7, 7])) == pytest.approx([0.4, 0.4])


def test_by_hand() -> None:
    # −log p is 0.126928 and 2.126928. Class 0, the larger, has the target (0.85, 0.15), class 1 its own.
    loss = LabelAwareSmoothing(name="label_aware_smoothing").build(np.array([30, 2]))
    logits = torch.tensor([[2.0, 0.0]])
    expected = 0.85 * 0.126928 + 0.15 * 2.126928
    assert float(loss(logits, torch.tensor([0]))) == pytest.approx(expected, abs=1e-6)
    assert float(loss(logits, torch.tensor([1]))) == pytest.approx(2.126928, abs=1e-6)


def test_alike_for_all_it_is_smoothed_cross_entropy() -> None:
    logits, labels = torch.randn(9, 3, generator=torch.Generator().manual_seed(0)), torch.arange(9) % 3
    alike = LabelAwareSmoothing(name="label_aware_smoothing", head=0.2, tail=0.2).build(COUNTS)(logits, labels)
    torch.testing.assert_close(alike, CrossEntropy(label_smoothing=0.2).build(COUNTS)(logits, labels))


def test_it_goes_with_balanced_draws() -> None:
    given = {"loss": {"name": "label_aware_smoothing"}, "sampler": {"name": "class_balanced"}}
    HeadTrainingSettings.model_validate(given)
