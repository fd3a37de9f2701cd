"""Gaussian classes with one covariance: linear discriminant analysis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from ltrec.rebalancing.adjusting import Adjustable
from ltrec.rebalancing.complexity import Complexity
from ltrec.rebalancing.methods.base import FitResult, Rebalancer, Row

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ltrec.models.heads import Head
    from ltrec.rebalancing.feature_bank import FeatureBank

_Shrinkage = Annotated[float, Field(gt=0, le=1)]


class GdaSettings(Adjustable):
    """A Gaussian for each class, all with one shrunk covariance, in closed form; the shrinkage is chosen on val."""

    complexity: ClassVar = Complexity.COMPUTED

    method: Literal["gda"]
    shrinkages: Annotated[list[_Shrinkage], Field(min_length=1)] = [0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.8, 1.0]
    """The grid of λ in (1 − λ)·Σ + λ·tr(Σ)/D·I; 1 is the nearest class mean."""
    views: Literal["plain", "all"] = "plain"
    """Which features are modelled: those of the images as they are tested, or of the augmented views too."""

    def build(self, seed: int) -> Gda:  # noqa: ARG002 - nothing is random
        return Gda(self.shrinkages, self.views)


@dataclass(frozen=True)
class Gda(Rebalancer):
    """Gives w_j = Σ⁻¹·μ_j and b_j = −½·μ_jᵀ·Σ⁻¹·μ_j: tied-covariance Gaussians of equal priors (Fisher 1936).

    Σ is shrunk to a multiple of the unit matrix, as by Friedman 1989: (1 − λ)·Σ + λ·tr(Σ)/D·I.
    """

    shrinkages: Sequence[float]
    views: Literal["plain", "all"]

    def fit(self, train: FeatureBank, val: FeatureBank, joint: Head) -> FitResult:
        from ltrec.rebalancing.class_counts import class_counts
        from ltrec.rebalancing.spectral import SpectralFamily, eigenbasis, moments

        views = train.views if self.views == "all" else 1
        counts = class_counts(train.labels, joint.classes, method="gda").double()
        shares = counts / counts.sum()
        center, means, scatter = moments(train.features[:views].flatten(0, 1), train.labels.repeat(views), shares)
        # What is left of the spread without that of the class means is the spread within classes.
        values, vectors, mean_value = eigenbasis(scatter - means.T @ (shares[:, None] * means))
        rotated = means @ vectors
        # Multiples of the covariance are told apart by the temperature alone: its mean eigenvalue is made 1.
        inverses = [1 / ((1 - shrinkage) * values / mean_value + shrinkage) for shrinkage in self.shrinkages]
        biases = [-(rotated.square() @ inverse) / 2 for inverse in inverses]
        index, balanced, head = SpectralFamily(vectors, center, rotated, inverses, biases).choose(val)
        chosen: Row = {"shrinkage": self.shrinkages[index]}
        curve: list[Row] = [
            {"shrinkage": shrinkage, "val": value} for shrinkage, value in zip(self.shrinkages, balanced, strict=True)
        ]
        return FitResult(head, chosen, curve)
