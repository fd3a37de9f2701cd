"""What is left of the training prior, taken out of any head."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from scipy.optimize import minimize

from ltrec.errors import UserError
from ltrec.models.heads import LinearHead, NearestMeanHead
from ltrec.rebalancing.adjusting import adjusted, fit_prior
from ltrec.rebalancing.feature_bank import FeatureBank
from ltrec.rebalancing.selection import LogitBlocks, mean_recall

if TYPE_CHECKING:
    import numpy as np

COUNTS = torch.tensor([400, 60, 10])
LOG_PRIOR = (COUNTS / COUNTS.sum()).log()
TRAIN_LABELS = torch.repeat_interleave(torch.arange(3), COUNTS)


def blocks(logits: torch.Tensor) -> LogitBlocks:
    return LogitBlocks(lambda: torch.split(logits, 2048))


def drawn(per_class: int, *, p: float, sharpness: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (3·n, 3) and labels with P(y | z) = softmax(sharpness·z − p·log π) where each class is as frequent."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(3).repeat_interleave(per_class)
    # Unit Gaussians about √2·e_y have the posterior softmax(√2·x) for equal priors.
    x = torch.randn(len(labels), 3, generator=generator) + 2**0.5 * torch.eye(3)[labels]
    return (2**0.5 * x + p * LOG_PRIOR) / sharpness, labels


def test_it_finds_what_the_logits_were_made_with() -> None:
    logits, labels = drawn(20_000, p=0.7, sharpness=3.0)
    assert fit_prior(blocks(logits), labels, LOG_PRIOR, 0.0) == pytest.approx((3.0, 0.7), rel=0.03)


@pytest.mark.parametrize("smoothing", [0.0, 0.05])
def test_it_is_the_minimum_that_a_general_search_finds(smoothing: float) -> None:
    logits, labels = drawn(30, p=-0.5, sharpness=0.5)
    keep = torch.cat([torch.arange(30), torch.arange(30, 45), torch.arange(60, 63)])  # 30, 15 and 3 of the classes
    logits, labels = logits[keep], labels[keep]
    weights = torch.tensor([1 / 30, 1 / 15, 1 / 3]).double()[labels] / 3
    targets = (1 - smoothing) * torch.eye(3).double()[labels] + smoothing / 3

    def likelihood(point: np.ndarray) -> float:
        log_p = torch.log_softmax(point[0] * logits.double() - point[1] * LOG_PRIOR.double(), dim=1)
        return -float(weights @ (targets * log_p).sum(dim=1))

    expected = minimize(likelihood, [1.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-12}).x
    assert fit_prior(blocks(logits), labels, LOG_PRIOR, smoothing) == pytest.approx(expected, abs=2e-3)


def test_classes_of_one_size_leave_nothing_to_take_out() -> None:
    logits, labels = drawn(50, p=0.0, sharpness=1.0)
    _, p = fit_prior(blocks(logits), labels, torch.full((3,), 1 / 3).log(), 0.01)
    assert p == pytest.approx(0.0, abs=1e-3)


def test_where_no_image_is_mistaken_it_still_ends() -> None:
    labels = torch.arange(3).repeat(4)
    sharpness, p = fit_prior(blocks(5 * torch.eye(3)[labels]), labels, LOG_PRIOR, 0.01)
    assert 0 < sharpness < 10
    assert abs(p) < 1


def bank(features: torch.Tensor, labels: torch.Tensor) -> FeatureBank:
    return FeatureBank(features[None], labels, {})


def test_the_head_answers_for_equal_priors_and_keeps_its_own_tensors() -> None:
    logits, labels = drawn(400, p=1.0, sharpness=2.0)
    head = LinearHead(torch.eye(3), None)
    head.prior_power = 1.0
    taken, p = adjusted(head, TRAIN_LABELS, bank(logits, labels))
    assert p == pytest.approx(1.0, abs=0.1)
    assert float(taken.temperature) == pytest.approx(1 / 2, abs=0.05)
    torch.testing.assert_close(taken(logits), logits / taken.temperature - p * LOG_PRIOR, atol=1e-4, rtol=1e-4)
    assert (taken.prior_power, head.prior_power, head.offset, float(head.temperature)) == (0.0, 1.0, None, 1.0)
    new, new_labels = drawn(400, p=1.0, sharpness=2.0, seed=1)
    before, after = (mean_recall(of(new).argmax(dim=1), new_labels) for of in (head, taken))
    assert after > before + 0.05


def test_a_head_whose_scores_are_small_numbers_too() -> None:
    logits, labels = drawn(400, p=1.0, sharpness=2.0)
    head = NearestMeanHead(torch.eye(3), torch.zeros(3), "un", "cosine")
    taken, p = adjusted(head, TRAIN_LABELS, bank(logits, labels))
    before, after = (mean_recall(of(logits).argmax(dim=1), labels) for of in (head, taken))
    assert p > 0
    assert after > before


def test_a_class_without_val_images_is_an_error() -> None:
    logits, labels = drawn(4, p=0.0, sharpness=1.0)
    known = labels != 1
    with pytest.raises(UserError, match=r"adjust needs val images of every class, and class 1 .* has none; allowed"):
        adjusted(LinearHead(torch.eye(3), None), TRAIN_LABELS, bank(logits[known], labels[known]))


def test_a_class_without_training_images_is_an_error() -> None:
    logits, labels = drawn(4, p=0.0, sharpness=1.0)
    with pytest.raises(UserError, match=r"class 2 \(counted from 0\) has no training image, and adjust needs one"):
        adjusted(LinearHead(torch.eye(3), None), TRAIN_LABELS[:450], bank(logits, labels))
