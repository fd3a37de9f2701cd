"""Mixed images: who is mixed with whom, how much, and what the targets say of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from ltrec.training.mixing import (
    Blended,
    MixedTargets,
    Pasted,
    PastedFromOthers,
    blend,
    main_labels,
    paste,
    split_targets,
)

LABELS = torch.tensor([3, 4, 5])


def test_each_is_blended_with_its_opposite() -> None:
    images, shares = torch.tensor([[0, 10], [100, 110], [200, 210]], dtype=torch.uint8), torch.tensor([1.0, 0.5, 0.25])
    mixed, (labels, others, given) = blend(images, LABELS, shares)
    assert mixed.tolist() == [[0, 10], [100, 110], [50, 60]]
    assert (labels.tolist(), others.tolist()) == ([3, 4, 5], [5, 4, 3])
    assert given is shares


@pytest.mark.parametrize("alpha", [0.01, 0.4, 100.0])
def test_shares_are_of_the_beta_distribution(alpha: float) -> None:
    batch = torch.zeros(20_000, 1), torch.zeros(20_000, dtype=torch.int64)
    ((_, (_, _, shares)),) = Blended(alpha).batches([batch], 1, (0, 1))
    ((_, (_, _, again)),) = Blended(alpha).batches([batch], 1, (0, 1))
    ((_, (_, _, other)),) = Blended(alpha).batches([batch], 2, (0, 2))
    assert torch.equal(shares, again)
    assert not torch.equal(shares, other)
    # In float32 the smallest and the largest shares are 0 and 1.
    inside = shares[(shares > 1e-6) & (shares < 1 - 1e-6)].double().numpy()
    beta = stats.beta(alpha, alpha)
    low, high = beta.cdf(1e-6), beta.cdf(1 - 1e-6)
    assert stats.kstest(inside, lambda x: (beta.cdf(x) - low) / (high - low)).pvalue > 0.01


def test_a_rectangle_of_the_other_is_pasted_and_the_share_is_what_was_kept() -> None:
    images, others = torch.zeros(3, 4, 4, 3, dtype=torch.uint8), torch.full((3, 4, 4, 3), 9, dtype=torch.uint8)
    boxes = torch.tensor([[1, 0, 3, 3], [0, 0, 0, 2], [0, 0, 4, 4]])  # 2 × 3 of 16 pixels, none, and all
    mixed, (labels, given, shares) = paste(images, LABELS, others, torch.tensor([0, 1, 2]), boxes)
    expected = torch.zeros(3, 4, 4, 3, dtype=torch.uint8)
    expected[0, 1:3, 0:3] = 9
    expected[2] = 9
    assert mixed.dtype == torch.uint8
    assert torch.equal(mixed, expected)
    assert (labels.tolist(), given.tolist()) == ([3, 4, 5], [0, 1, 2])
    assert shares.tolist() == [0.625, 1.0, 0.0]


class Fixed:
    """In place of a generator: λ = 0.51, middles at (row, column) = (5, 0) and (3, 6), the first image pasted into."""

    def beta(self, _a: float, _b: float, size: tuple[int, int]) -> np.ndarray:
        return np.full(size, 0.51)

    def integers(self, _low: int, _high: int, size: tuple[int, int]) -> np.ndarray:
        return np.array([[5, 0], [3, 6]]).reshape(size)

    def random(self, size: tuple[int, int]) -> np.ndarray:
        return np.array([0.1, 0.9]).reshape(size)


def test_a_rectangles_sides_and_place_are_the_papers() -> None:
    # √(1 − 0.51) = 0.7 of 10 pixels is 7, 3 on either side of the middle; columns −3 … −1 are cut off.
    boxes = Pasted(1.0, 0.5).boxes(2, 10, Fixed())  # type: ignore[arg-type]
    assert boxes.tolist() == [[2, 0, 8, 3], [3, 6, 3, 6]]


@pytest.mark.parametrize("mix", [Pasted(1.0, 0.5), PastedFromOthers(1.0, 0.5, range(1, 3))])
def test_shares_are_those_of_the_pixels(mix: Pasted | PastedFromOthers) -> None:
    # Each image's pixels are its own number.
    count, side = 200, 9
    batches = [
        (number.view(-1, 1, 1, 1).expand(-1, side, side, 3).float(), number)
        for number in (torch.arange(count), torch.arange(1000, 1000 + count))
    ]
    found = list(mix.batches(batches, 1, (0, 1)))
    assert len(found) == (2 if isinstance(mix, Pasted) else 1)
    mixed, targets = found[0]
    assert isinstance(targets, MixedTargets)
    labels, others, shares = targets
    assert torch.equal(others, labels.flip(0) if isinstance(mix, Pasted) else batches[1][1])
    own, other = (
        (mixed[..., 0] == number.view(-1, 1, 1)).flatten(1).float().mean(dim=1) for number in (labels, others)
    )
    torch.testing.assert_close(shares.float(), own)
    torch.testing.assert_close(1 - shares.float(), other)
    # Half of the images stay, and of the others those whose rectangle has no pixel.
    assert 0.4 < (shares == 1).float().mean() < 0.65
    again, other_epoch = next(mix.batches(batches, 1, (0, 1))), next(mix.batches(batches, 2, (0, 2)))
    assert torch.equal(mixed, again[0])
    assert not torch.equal(mixed, other_epoch[0])


def test_of_pairs_of_batches_the_first_stays_where_nothing_is_pasted() -> None:
    batches = [(torch.full((2, 4, 4, 3), float(n)), torch.tensor([n, n])) for n in range(4)]
    mix = PastedFromOthers(1.0, 1.0, range(1, 3))
    for epoch in (0, 3):
        found = list(mix.batches(batches, epoch, (0, epoch)))
        assert [int(images[0, 0, 0, 0]) for images, _ in found] == [0, 2]
        assert all(isinstance(targets, torch.Tensor) for _, targets in found)
    with pytest.raises(ValueError, match="zip"):
        list(mix.batches(batches[:3], 1, (0, 1)))


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
