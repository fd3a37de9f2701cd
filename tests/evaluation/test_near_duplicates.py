"""Near-duplicates by hand: copies among images that are no copies, in classes that lie close together."""

from __future__ import annotations

import pytest
import torch

from ltrec.evaluation.near_duplicates import Pair, find_near_duplicates


def images(count: int = 60) -> torch.Tensor:
    """Features (N, 8) of two classes, each a narrow cloud: all cosines within a class are above 0.9."""
    random = torch.Generator().manual_seed(5)
    centers = torch.eye(2, 8)[torch.arange(count) % 2]
    return 3 * centers + 0.3 * torch.randn(count, 8, generator=random)


def copied(features: torch.Tensor, *pairs: tuple[int, int], noise: float = 0.01) -> torch.Tensor:
    """The features, each second of a pair a copy of the first with a little noise."""
    random = torch.Generator().manual_seed(6)
    features = features.clone()
    for original, copy in pairs:
        features[copy] = features[original] + noise * torch.randn(8, generator=random)
    return features


def places(pairs: list[Pair]) -> set[tuple[int, int]]:
    return {(pair.first, pair.second) for pair in pairs}


def test_close_classes_are_no_duplicates() -> None:
    assert find_near_duplicates(images(), (40, 10, 10)) == []


def test_copies_are_found_between_any_two_splits_and_not_within_one() -> None:
    features = copied(images(), (3, 41), (7, 55), (44, 58), (10, 20))
    assert places(find_near_duplicates(features, (40, 10, 10))) == {(3, 41), (7, 55), (44, 58)}


def test_the_most_similar_come_first_with_the_cosine_of_centred_features() -> None:
    features = copied(images(), (3, 41), noise=0.02)
    features[55] = features[7]
    first, second = find_near_duplicates(features, (40, 10, 10))
    assert (first.first, first.second, first.similarity) == (7, 55, pytest.approx(1.0))
    wanted = torch.cosine_similarity(*(features[[3, 41]] - features.mean(dim=0))[:, None], dim=1)
    assert second.similarity == pytest.approx(float(wanted), abs=1e-5)


def test_three_copies_do_not_hide_each_other_and_a_burst_of_five_does() -> None:
    assert places(find_near_duplicates(copied(images(), (3, 5), (3, 9), (3, 41)), (40, 10, 10)))
    burst = copied(images(), (3, 5), (3, 7), (3, 9), (3, 11), (3, 41), noise=0.05)
    assert not places(find_near_duplicates(burst, (40, 10, 10)))


@pytest.mark.parametrize("images_at_once", [1, 7, 1000])
def test_blocks_are_the_whole(images_at_once: int) -> None:
    features = copied(images(), (3, 41), (7, 55), (44, 58))
    blocks = find_near_duplicates(features, (40, 10, 10), images_at_once=images_at_once)
    assert places(blocks) == {(3, 41), (7, 55), (44, 58)}


def test_few_images_or_the_same_features_everywhere_are_no_pairs() -> None:
    assert find_near_duplicates(copied(images(4), (0, 3)), (2, 0, 2)) == []
    assert find_near_duplicates(torch.ones(30, 4), (20, 0, 10)) == []
