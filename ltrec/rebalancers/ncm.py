"""Nearest class mean."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from ltrec.rebalancers.base import Fitted, Rebalancer
from ltrec.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from ltrec.features import FeatureBank
    from ltrec.heads import LinearHead, NearestMeanHead
    from ltrec.rebalancers.base import Row
    from ltrec.selection import Score

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
        from ltrec.heads import NearestMeanHead, transformed
        from ltrec.selection import calibrated, score

        center = train.features.mean(dim=(0, 1))
        candidates: list[tuple[Score, NearestMeanHead]] = []
        curve: list[Row] = []
        for transform in self.transforms:
            means = class_means(
                train.features.flatten(0, 1),
                train.labels.repeat(train.views),
                classes=joint.weight.shape[0],
                transform=partial(transformed, center=center, transform=transform),
            )
            for distance in self.distances:
                head = NearestMeanHead(means, center, transform, distance)
                result = score(head(val.plain), val.labels)
                candidates.append((result, head))
                curve.append({"transform": transform, "distance": distance, "val": result.balanced})
        # max keeps the first of equals: the order of the settings decides.
        best = max(candidates, key=lambda candidate: candidate[0])[1]
        temperature, _ = calibrated(best(val.plain), val.labels)
        best.temperature.fill_(temperature)
        return Fitted(best, {**best.options(), "temperature": temperature}, curve)


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
