"""Mixup: who is blended with whom, and how much."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from ltrec.training.mixing import MixedTargets, main_labels, mix, mixed_batches, split_targets

LABELS = torch.tensor([3, 4, 5])


def test_each_is_blended_with_its_opposite() -> None:
    images, shares = torch.tensor([[0, 10], [100, 110], [200, 210]], dtype=torch.uint8), torch.tensor([1.0, 0.5, 0.25])
    mixed, (labels, others, given) = mix(images, LABELS, shares)
    assert mixed.tolist() == [[0, 10], [100, 110], [50, 60]]
    assert (labels.tolist(), others.tolist()) == ([3, 4, 5], [5, 4, 3])
    assert given is shares


@pytest.mark.parametrize("alpha", [0.01, 0.4, 100.0])
def test_shares_are_of_the_beta_distribution(alpha: float) -> None:
    batch = torch.zeros(20_000, 1), torch.zeros(20_000, dtype=torch.int64)
    ((_, (_, _, shares)),) = mixed_batches([batch], alpha, (0, 1))
    ((_, (_, _, again)),) = mixed_batches([batch], alpha, (0, 1))
    ((_, (_, _, other)),) = mixed_batches([batch], alpha, (0, 2))
    assert torch.equal(shares, again)
    assert not torch.equal(shares, other)
    # In float32 the smallest and the largest shares are 0 and 1.
    inside = shares[(shares > 1e-6) & (shares < 1 - 1e-6)].double().numpy()
    beta = stats.beta(alpha, alpha)
    low, high = beta.cdf(1e-6), beta.cdf(1 - 1e-6)
    assert stats.kstest(inside, lambda x: (beta.cdf(x) - low) / (high - low)).pvalue > 0.01


def test_the_main_label_is_that_of_the_larger_part() -> None:
    targets = MixedTargets(LABELS, LABELS.flip(0), torch.tensor([0.5, 1.0, 0.49]))
    assert main_labels(targets).tolist() == [3, 4, 3]
    assert main_labels(LABELS) is LABELS


def test_targets_are_cut_as_their_images() -> None:
    images, shares = torch.arange(3), torch.tensor([0.1, 0.2, 0.3])
    parts = split_targets(MixedTargets(LABELS, LABELS.flip(0), shares), 2)
    assert [part[0].tolist() for part in parts] == [[3, 4], [5]]
    assert [part[2].tolist() for part in parts] == [part.tolist() for part in shares.tensor_split(2)]
    assert [part.tolist() for part in split_targets(LABELS, 2)] == [[3, 4], [5]]
    assert [len(part) for part in images.tensor_split(2)] == [2, 1]
