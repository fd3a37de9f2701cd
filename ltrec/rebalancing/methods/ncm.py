"""Nearest class mean."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from ltrec.rebalancing.adjusting import Adjustable
from ltrec.rebalancing.complexity import Complexity
from ltrec.rebalancing.methods.base import FitResult, Rebalancer, Row

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from torch import Tensor

    from ltrec.models.heads import Head, NearestMeanHead
    from ltrec.models.heads.nearest_mean import Distance, Transform
    from ltrec.rebalancing.feature_bank import FeatureBank

_IMAGES_AT_ONCE, _IMAGES_A_BAG = 1024, 256


class NcmSettings(Adjustable):
    """Nearest class mean; the transform and the distance are chosen on val among those listed."""

    complexity: ClassVar = Complexity.COMPUTED

    method: Literal["ncm"]
    transforms: Annotated[list[Literal["un", "l2n", "cl2n"]], Field(min_length=1)] = ["cl2n", "l2n", "un"]
    """Features raw (`un`), L2-normalised (`l2n`), or centred and L2-normalised (`cl2n`)."""
    distances: Annotated[list[Literal["euclidean", "cosine"]], Field(min_length=1)] = ["euclidean", "cosine"]
    views: Literal["plain", "all"] = "plain"
    """Whose features are averaged: those of the images as they are tested, or of the augmented views too."""

    def build(self, seed: int) -> Ncm:  # noqa: ARG002 - nothing is random
        return Ncm(self.transforms, self.distances, self.views)


@dataclass(frozen=True)
class Ncm(Rebalancer):
    """Classifies by the nearest mean of the training features (Kang et al. 2020, section 4).

    Means are taken after the transform and not normalised again; val's features go through the same transform.
    """

    transforms: Sequence[Transform]
    distances: Sequence[Distance]
    views: Literal["plain", "all"] = "plain"

    def fit(self, train: FeatureBank, val: FeatureBank, joint: Head) -> FitResult:
        from ltrec.models.heads import NearestMeanHead
        from ltrec.rebalancing.selection import choose_on_val

        averaged = train if self.views == "all" else replace(train, features=train.features[:1])
        center, means = class_means(averaged, joint.classes, self.transforms)
        # Which comes first decides between equals.
        heads = [
            NearestMeanHead(means[transform], center, transform, distance)
            for transform, distance in itertools.product(self.transforms, self.distances)
        ]
        chosen, balanced = choose_on_val(partial(self._logits, heads), len(heads), val.plain, val.labels)
        curve: list[Row] = [
            candidate.options() | {"val": accuracy} for candidate, accuracy in zip(heads, balanced, strict=True)
        ]
        return FitResult(heads[chosen], heads[chosen].options(), curve)

    def _logits(self, heads: Sequence[NearestMeanHead], features: Tensor) -> Iterator[Tensor]:
        """Yield the logits (n, C) of each head; those of a transform share one product."""
        from ltrec.models.heads.nearest_mean import closeness, transformed

        for first in heads[:: len(self.distances)]:
            z = transformed(features, first.center, first.transform)
            products, norms = z @ first.means.T, (z.norm(dim=1), first.means.norm(dim=1))
            for distance in self.distances:
                yield closeness(products, *norms, distance)


def class_means(
    bank: FeatureBank, classes: int, transforms: Iterable[Transform]
) -> tuple[Tensor, dict[Transform, Tensor]]:
    """Return the mean feature (D,) and, for each transform, each class's mean of the transformed features (C, D).

    A transformed feature is the feature, perhaps less the mean feature, times a weight of its own: weighted sums of
    each class's features give all means, and no transformed copy of the features is needed. A class without images has
    a mean of 0.
    """
    import torch
    import torch.nn.functional as F

    from ltrec.models.heads.nearest_mean import TINY

    features, labels = bank.features.flatten(0, 1), bank.labels.repeat(bank.views).to(bank.features.device)
    order = labels.argsort(stable=True)
    counts = labels.bincount(minlength=classes)
    # Features are summed in bags of one class's images, so small that float32 sums keep their digits.
    position = torch.arange(len(order), device=order.device)
    bags = position[(position - (counts.cumsum(0) - counts)[labels[order]]) % _IMAGES_A_BAG == 0]
    bag_labels = labels[order[bags]]

    def class_sums(weights: Tensor) -> Tensor:
        """Return Σ w_i·x_i over each class's images for weights (N,), float64 (C, D)."""
        bag_sums = F.embedding_bag(order, features, bags, mode="sum", per_sample_weights=weights[order])
        sums = torch.zeros((classes, features.shape[1]), dtype=torch.float64, device=features.device)
        return sums.index_add_(0, bag_labels, bag_sums.double())

    def inverse_norms(center: Tensor | None) -> Tensor:
        """Return 1/‖x_i − center‖, (N,)."""
        blocks = torch.split(features, _IMAGES_AT_ONCE)
        norms = [(block if center is None else block - center).norm(dim=1) for block in blocks]
        return 1 / torch.cat(norms).clamp(min=TINY)

    plain = class_sums(torch.ones_like(order, dtype=features.dtype))
    center = (plain.sum(dim=0) / len(labels)).to(features.dtype)
    means: dict[Transform, Tensor] = {}
    for transform in transforms:
        sums = plain
        if transform != "un":
            weights = inverse_norms(center if transform == "cl2n" else None)
            sums = class_sums(weights)
            if transform == "cl2n":
                sums = sums - labels.bincount(weights.double(), minlength=classes)[:, None] * center
        means[transform] = (sums / counts.clamp(min=1)[:, None]).to(features.dtype).to(bank.labels.device)
    return center.to(bank.labels.device), means
