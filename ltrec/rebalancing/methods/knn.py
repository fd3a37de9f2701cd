"""Nearest neighbours among the training images."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from ltrec.errors import UserError
from ltrec.rebalancing.adjusting import Adjustable
from ltrec.rebalancing.complexity import Complexity
from ltrec.rebalancing.methods.base import FitResult, Rebalancer, Row
from ltrec.settings import PositiveInt

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from ltrec.models.heads import Head
    from ltrec.rebalancing.feature_bank import FeatureBank

_MIB = 2**20
_IMAGES_AT_ONCE = 1024
_Sharpness = Annotated[float, Field(ge=0.03, le=100)]


class KnnSettings(Adjustable):
    """A vote of the nearest training images, by cosine, each divided by the size of its class."""

    complexity: ClassVar = Complexity.COMPUTED

    method: Literal["knn"]
    neighbours: Annotated[list[PositiveInt], Field(min_length=1)] = [1, 3, 5, 10, 20, 50, 100]
    """The grid of k; a k that is not below the number of training images counts as the largest that is."""
    sharpness: Annotated[list[_Sharpness], Field(min_length=1)] = [0.1, 0.3, 1.0]
    """The grid of s: a neighbour votes exp(t_i / s) − 1, with t_i from 1, where the image is, to 0 at the (k + 1)th.
    The smaller s, the more the nearest count."""
    max_mib: PositiveInt = 256
    """The largest head, in MiB: all training images' features are in it, and so in the ONNX file."""

    def build(self, seed: int) -> Knn:  # noqa: ARG002 - nothing is random
        return Knn(self.neighbours, self.sharpness, self.max_mib)


@dataclass(frozen=True)
class Knn(Rebalancer):
    """Classifies by the k nearest training images, view 0, each voting with a weight of 1/n_j.

    k_j/n_j, with k_j neighbours of class j, estimates the density of class j at the image, and the largest of the
    densities is the class for equal priors (Fix & Hodges 1951). Nearer neighbours count for more.
    """

    neighbours: Sequence[int]
    sharpness: Sequence[float]
    max_mib: int

    def fit(self, train: FeatureBank, val: FeatureBank, joint: Head) -> FitResult:
        from ltrec.models.heads import KnnHead
        from ltrec.models.heads.knn import nearest, vote
        from ltrec.rebalancing.class_counts import class_counts
        from ltrec.rebalancing.selection import choose_on_val

        self._require_room(train.plain)
        counts = class_counts(train.labels, joint.classes, method="knn").float()
        exemplars, center = _centred(train)
        labels, from_center = train.labels.clone(), exemplars.square().sum(dim=1) / 2
        # Votes keep their size on average, whatever the counts: the floor means the same everywhere.
        weights = len(labels) / (len(counts) * counts)
        ks = list(dict.fromkeys(min(k, len(labels) - 1) for k in self.neighbours))
        candidates = list(itertools.product(ks, self.sharpness))

        def votes(features: Tensor) -> Iterator[Tensor]:
            """Yield the logits (n, C) of each k and s, which share the search."""
            distances, indices = nearest(features, exemplars, center, from_center, max(ks) + 1)
            classes, spread = labels[indices], from_center.mean()
            for k, sharpness in candidates:
                yield vote(distances, classes, weights, spread, neighbours=k, sharpness=sharpness)

        index, balanced = choose_on_val(votes, len(candidates), val.plain, val.labels)
        k, sharpness = candidates[index]
        head = KnnHead(exemplars, center, labels, weights, neighbours=k, sharpness=sharpness).to(labels.device)
        curve: list[Row] = [
            {"neighbours": k, "sharpness": sharpness, "val": value}
            for (k, sharpness), value in zip(candidates, balanced, strict=True)
        ]
        return FitResult(head, {"neighbours": k, "sharpness": sharpness}, curve)

    def _require_room(self, features: Tensor) -> None:
        """Refuse a bank (N, D) that is no head.

        Raises:
            UserError: There is one image alone, or the head would be larger than is allowed.
        """
        if len(features) < 2:
            raise UserError("knn compares neighbours; it needs two training images at least, got 1")
        if features.nbytes > self.max_mib * _MIB:
            raise UserError(
                f"a head of {len(features):,} training images with {features.shape[1]:,} features takes"
                f" {features.nbytes / _MIB:,.0f} MiB, and so does its ONNX file; allowed: max_mib {self.max_mib} (a"
                " larger one allows it), or another method"
            )


def _centred(train: FeatureBank) -> tuple[Tensor, Tensor]:
    """Return the plain features, each of length 1, less their mean, (N, D), and that mean, (D,)."""
    import torch
    import torch.nn.functional as F

    exemplars = torch.empty(train.plain.shape, device=train.labels.device)
    for rows, block in zip(*(torch.split(of, _IMAGES_AT_ONCE) for of in (exemplars, train.plain)), strict=True):
        rows.copy_(F.normalize(block.to(rows.device), dim=1))
    center = exemplars.mean(dim=0)
    return exemplars.sub_(center), center
