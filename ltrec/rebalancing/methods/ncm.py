"""Nearest class mean."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from ltrec.rebalancing.methods.base import FitResult, Rebalancer
from ltrec.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from torch import Tensor

    from ltrec.models.heads import Head, NearestMeanHead, Transform
    from ltrec.rebalancing.feature_bank import FeatureBank
    from ltrec.rebalancing.methods.base import Row

_IMAGES_AT_ONCE, _IMAGES_A_BAG = 1024, 256
# Below it a norm counts as this, as in torch's own normalisation.
_TINY = 1e-12


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

    def fit(self, train: FeatureBank, val: FeatureBank, joint: Head) -> FitResult:
        from ltrec.models.heads import logits_of
        from ltrec.rebalancing.selection import best, calibrated

        heads = self._heads(train, joint.classes)
        place, balanced = best(lambda features: self._logits(heads, features), len(heads), val.plain, val.labels)
        head = heads[place]
        temperature, _ = calibrated(logits_of(head, val.plain), val.labels)
        head.temperature.fill_(temperature)
        settings = itertools.product(self.transforms, self.distances)
        curve: list[Row] = [
            {"transform": transform, "distance": distance, "val": value}
            for (transform, distance), value in zip(settings, balanced, strict=True)
        ]
        return FitResult(head, {**head.options(), "temperature": temperature}, curve)

    def _heads(self, train: FeatureBank, classes: int) -> list[NearestMeanHead]:
        """One for each setting; which comes first decides between equals."""
        from ltrec.models.heads import NearestMeanHead

        center, means = class_means(train, classes, self.transforms)
        settings = itertools.product(self.transforms, self.distances)
        return [NearestMeanHead(means[transform], center, transform, distance) for transform, distance in settings]

    def _logits(self, heads: Sequence[NearestMeanHead], features: Tensor) -> Iterator[Tensor]:
        """Of each head, (n, C): one product for all distances of a transform."""
        from ltrec.models.heads import closeness, transformed

        for first in heads[:: len(self.distances)]:
            queries = transformed(features, first.center, first.transform)
            products, norms = queries @ first.means.T, (queries.norm(dim=1), first.means.norm(dim=1))
            for distance in self.distances:
                yield closeness(products, *norms, distance)


def class_means(
    bank: FeatureBank, classes: int, transforms: Iterable[Transform]
) -> tuple[Tensor, dict[Transform, Tensor]]:
    """The mean feature (D,), and each class's mean of the transformed features, (C, D), for each transform.

    A transformed feature is the feature, perhaps less the mean feature, times a number of its own: sums of each class's
    features with weights make all of them, and no transformed copy of the features is needed. A class without images
    has a mean of 0.
    """
    import torch
    import torch.nn.functional as F

    features, labels = bank.features.flatten(0, 1), bank.labels.repeat(bank.views).to(bank.features.device)
    order = labels.argsort(stable=True)
    counts = labels.bincount(minlength=classes)
    # Bags of one class's images, so small that float32 sums keep their digits.
    place = torch.arange(len(order), device=order.device)
    first = place[(place - (counts.cumsum(0) - counts)[labels[order]]) % _IMAGES_A_BAG == 0]
    of_class = labels[order[first]]

    def sums(weights: Tensor) -> Tensor:
        """Σ w_i·z_i over each class's images, (N,) → (C, D), float64."""
        bags = F.embedding_bag(order, features, first, mode="sum", per_sample_weights=weights[order])
        whole = torch.zeros((classes, features.shape[1]), dtype=torch.float64, device=features.device)
        return whole.index_add_(0, of_class, bags.double())

    def inverse_norms(center: Tensor | None) -> Tensor:
        """1/‖z_i − center‖, (N,)."""
        blocks = torch.split(features, _IMAGES_AT_ONCE)
        norms = [(block if center is None else block - center).norm(dim=1) for block in blocks]
        return 1 / torch.cat(norms).clamp(min=_TINY)

    plain = sums(torch.ones_like(order, dtype=features.dtype))
    center = (plain.sum(dim=0) / len(labels)).to(features.dtype)
    found: dict[Transform, Tensor] = {}
    for transform in transforms:
        if transform == "un":
            total = plain
        else:
            inverse = inverse_norms(center if transform == "cl2n" else None)
            total = sums(inverse)
            if transform == "cl2n":
                total = total - labels.bincount(inverse.double(), minlength=classes)[:, None] * center
        found[transform] = (total / counts.clamp(min=1)[:, None]).to(features.dtype).to(bank.labels.device)
    return center.to(bank.labels.device), found
