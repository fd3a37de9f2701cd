"""Moments of features against slow loops, and classifiers in an eigenbasis against inverted matrices."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from ltrec.errors import UserError
from ltrec.rebalancing import spectral
from ltrec.rebalancing.spectral import SpectralFamily, eigenbasis, moments

GENERATOR = torch.Generator().manual_seed(0)
FEATURES = torch.randn(50, 4, generator=GENERATOR) + torch.tensor([3.0, 0.0, -2.0, 1.0])
LABELS = torch.arange(50) % 7 % 3
SHARES = torch.tensor([0.5, 0.3, 0.2])


@pytest.mark.parametrize("at_once", [2048, 7])
def test_moments_as_a_slow_loop(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spectral, "_IMAGES_AT_ONCE", at_once)
    center, means, scatter = moments(FEATURES, LABELS, SHARES)
    of_class = [FEATURES[label == LABELS].double() for label in range(3)]
    wanted = sum(share * x.mean(dim=0) for share, x in zip(SHARES.tolist(), of_class, strict=True))
    assert isinstance(wanted, torch.Tensor)
    spread = torch.zeros(4, 4, dtype=torch.float64)
    for share, x in zip(SHARES.tolist(), of_class, strict=True):
        for row in x:
            spread += share / len(x) * torch.outer(row - wanted, row - wanted)
    assert_close(center, wanted, rtol=1e-6, atol=1e-6)
    assert_close(means, torch.stack([x.mean(dim=0) for x in of_class]) - wanted, rtol=1e-5, atol=1e-6)
    assert_close(scatter, spread, rtol=1e-5, atol=1e-6)


def test_moments_keep_their_digits_far_from_the_origin() -> None:
    # Squares of 1000 are 10⁶, whose seventh digit is where a variance of 0.01 begins.
    far = FEATURES / 10 + 1000
    counts = LABELS.bincount().double()
    _, _, scatter = moments(far, LABELS, counts / counts.sum())
    assert_close(scatter, torch.cov(far.double().T, correction=0), rtol=1e-3, atol=1e-5)


def test_a_familys_scores_and_heads_are_those_of_inverted_matrices() -> None:
    covariance = torch.cov(FEATURES.double().T)
    values, vectors, mean = eigenbasis(covariance)
    assert mean == pytest.approx(float(covariance.trace()) / 4)
    center, means = FEATURES.double().mean(dim=0), torch.randn(3, 4, generator=GENERATOR, dtype=torch.float64)
    bias = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
    added = (0.5, 2.0)
    family = SpectralFamily(vectors, center, means @ vectors, [1 / (values + more) for more in added], [bias] * 2)
    for index, (more, scores) in enumerate(zip(added, family.logits(FEATURES), strict=True)):
        inverse = torch.linalg.inv(covariance + more * torch.eye(4, dtype=torch.float64))
        wanted = ((FEATURES.double() - center) @ inverse @ means.T + bias).float()
        assert_close(scores, wanted, rtol=1e-5, atol=1e-5)
        assert_close(family.head(index)(FEATURES), wanted, rtol=1e-5, atol=1e-5)


def test_features_that_are_all_the_same_have_a_basis() -> None:
    values, _, mean = eigenbasis(torch.zeros(3, 3, dtype=torch.float64))
    assert (values.tolist(), mean) == ([0.0] * 3, 1.0)


def test_features_that_overflow_are_refused() -> None:
    _, _, scatter = moments(1e30 * FEATURES, LABELS, SHARES)
    with pytest.raises(UserError, match="covariance of the training features is not finite"):
        eigenbasis(scatter)
