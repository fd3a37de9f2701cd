"""Near-duplicates across splits, by features. N images, D features.

No fixed similarity tells copies from others: a trained network draws each class together, and on digits half of all
different images of two splits have a cosine above 0.98, as recompressed copies have. So a pair counts by its
neighbourhood, as in Lowe's ratio test (2004): two images must be much nearer to each other than each is to its fourth
nearest neighbour. Up to three copies do not hide each other; longer bursts do. What it finds and misses is measured in
docs/suspects.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

_NEIGHBOUR = 4
_RATIO = 0.35
"""Chosen on digits and CIFAR-10: no false alarm among 1,780 images that are no copies; at 0.5 there were seven."""
_IMAGES_AT_ONCE = 4096


class Pair(NamedTuple):
    """Two images of different splits, by their rows, and the cosine of their centred features."""

    first: int
    second: int
    similarity: float


def find_near_duplicates(
    features: Tensor, sizes: Sequence[int], *, images_at_once: int = _IMAGES_AT_ONCE
) -> list[Pair]:
    """Return pairs of images that are all but the same, the most similar first.

    Each image is paired with the nearest one of the splits before its own, if with any.

    Args:
        features: (N, D), split after split.
        sizes: The number of images in each split; their sum is N.
        images_at_once: How many images are compared with as many others at a time.
    """
    center = features.mean(dim=0)
    pairs: list[Pair] = []
    start = sizes[0]
    for size in sizes[1:]:
        if start >= _NEIGHBOUR:
            for rows in torch.split(torch.arange(start, start + size), images_at_once):
                pairs += _pairs(features, center, rows, start, images_at_once)
        start += size
    return sorted(pairs, key=lambda pair: (-pair.similarity, pair.first, pair.second))


def _pairs(features: Tensor, center: Tensor, rows: Tensor, before: int, images_at_once: int) -> list[Pair]:
    """Return the pairs of some images, by their rows (n,), with the first `before` images."""
    near, places = _nearest(features[:before], center, features[rows], _NEIGHBOUR, images_at_once)
    apart = (_distance(near[:, 0]) < _RATIO * _distance(near[:, -1])).nonzero()[:, 0]
    if not len(apart):
        return []
    rows, near, partners = rows[apart], near[apart, 0], places[apart, 0]
    # The nearest of all images to the partner is itself.
    around, _ = _nearest(features, center, features[partners], _NEIGHBOUR + 1, images_at_once)
    both = _distance(near) < _RATIO * _distance(around[:, -1])
    found = zip(partners[both].tolist(), rows[both].tolist(), near[both].tolist(), strict=True)
    return [Pair(first, second, min(similarity, 1.0)) for first, second, similarity in found]


def _nearest(
    features: Tensor, center: Tensor, queries: Tensor, count: int, images_at_once: int
) -> tuple[Tensor, Tensor]:
    """Return the largest cosines of queries (n, D) to features, the largest first, and their rows, both (n, count)."""
    queries = F.normalize(queries - center, dim=1)
    best = torch.full((len(queries), 0), 0.0)
    places = torch.empty((len(queries), 0), dtype=torch.int64)
    for start in range(0, len(features), images_at_once):
        block = F.normalize(features[start : start + images_at_once] - center, dim=1)
        cosines, nearest = (queries @ block.T).topk(min(count, len(block)), dim=1)
        best, places = torch.cat([best, cosines], dim=1), torch.cat([places, nearest + start], dim=1)
        best, kept = best.topk(min(count, best.shape[1]), dim=1)
        places = places.gather(1, kept)
    return best, places


def _distance(cosine: Tensor) -> Tensor:
    """Return the Euclidean distance of two vectors of length 1 with this cosine."""
    return (2 - 2 * cosine).clamp(min=0).sqrt()
