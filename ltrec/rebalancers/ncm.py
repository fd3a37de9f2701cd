"""Nearest class mean."""

from __future__ import annotations

import itertools
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from ltrec.rebalancers.base import Fitted, Rebalancer
from ltrec.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

    from ltrec.features import FeatureBank
    from ltrec.heads import LinearHead, NearestMeanHead
    from ltrec.rebalancers.base import Row

_IMAGES_AT_ONCE = 16384


class NcmSettings(Settings):
    """Nearest class mean; the transform and the distance are chosen on val among those listed."""

    method: Literal["ncm"]
    transforms: Annotated[list[Literal["un", "l2n", "cl2n"]], Field(min_length=1)] = ["cl2n", "l2n", "un"]
    """Features raw (`un`), L2-normalised (`l2n`), or centred and L2-normalised (`cl2n`)."""
    distances: Annotated[list[Literal["euclidean", "cosine"]], Field(min_length=1)] = ["euclidean", "cosine"]

    def build(self, seed: int) -> Ncm:  # noqa: ARG002 - nothing is random
        return Ncm(self.transforms, self.distances)


class Ncm(Rebalancer):
    """Classifies by the nearest mean of the training features (Kang et al. 2020, section 4).

    Means are taken after the transform and not normalised again; queries go through the same transform.
    """

    def __init__(
        self,
        transforms: Sequence[Literal["un", "l2n", "cl2n"]],
        distances: Sequence[Literal["euclidean", "cosine"]],
    ) -> None:
        self.transforms = transforms
        self.distances = distances

    def fit(self, train: FeatureBank, val: FeatureBank, joint: LinearHead) -> Fitted:
        from ltrec.selection import best, calibrated

        head, balanced = best(
            ((head, head(val.plain)) for head in self._heads(train, joint.weight.shape[0])), val.labels
        )
        temperature, _ = calibrated(head(val.plain), val.labels)
        head.temperature.fill_(temperature)
        settings = itertools.product(self.transforms, self.distances)
        curve: list[Row] = [
            {"transform": transform, "distance": distance, "val": value}
            for (transform, distance), value in zip(settings, balanced, strict=True)
        ]
        return Fitted(head, {**head.options(), "temperature": temperature}, curve)

    def _heads(self, train: FeatureBank, classes: int) -> Iterator[NearestMeanHead]:
        """One for each setting; which comes first decides between equals."""
        from ltrec.heads import NearestMeanHead, transformed

        center = train.features.mean(dim=(0, 1))
        for transform in self.transforms:
            means = class_means(
                train.features.flatten(0, 1),
                train.labels.repeat(train.views),
                classes=classes,
                transform=partial(transformed, center=center, transform=transform),
            )
            for distance in self.distances:
                yield NearestMeanHead(means, center, transform, distance)


def class_means(features: Tensor, labels: Tensor, classes: int, transform: Callable[[Tensor], Tensor]) -> Tensor:
    """Mean of each class's transformed features, (N, D) → (C, D), summed in float64.

    Block by block: of many images, a transformed copy and one in float64 would not fit into memory.
    """
    import torch

    sums = features.new_zeros((classes, features.shape[1]), dtype=torch.float64)
    for first in range(0, len(labels), _IMAGES_AT_ONCE):
        some = slice(first, first + _IMAGES_AT_ONCE)
        sums.index_add_(0, labels[some], transform(features[some]).double())
    counts = labels.bincount(minlength=classes).clamp(min=1)
    return (sums / counts[:, None]).to(features.dtype)
