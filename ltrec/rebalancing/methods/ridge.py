"""Class-balanced ridge regression."""

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

_Strength = Annotated[float, Field(ge=1e-8, le=1e8)]


class RidgeSettings(Adjustable):
    """Least squares on the classes' indicators, each class with the same weight; λ is chosen on val."""

    complexity: ClassVar = Complexity.COMPUTED

    method: Literal["ridge"]
    lambdas: Annotated[list[_Strength], Field(min_length=1)] = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0]
    """The grid of λ, as multiples of the mean eigenvalue of the features' weighted covariance."""
    views: Literal["plain", "all"] = "plain"
    """Which features are fitted: those of the images as they are tested, or of the augmented views too."""

    def build(self, seed: int) -> Ridge:  # noqa: ARG002 - nothing is random
        return Ridge(self.lambdas, self.views)


@dataclass(frozen=True)
class Ridge(Rebalancer):
    """Gives W = (XᵀSX + λ·I)⁻¹·XᵀSY with an intercept that is not shrunk (Hoerl & Kennard 1970).

    Y holds a 1 at each image's class, S the weights 1/(C·n_y), so that each class counts the same. With X and Y centred
    by these weights, XᵀSY has the class means over C for columns, and the intercept makes up for the centring.
    """

    lambdas: Sequence[float]
    views: Literal["plain", "all"]

    def fit(self, train: FeatureBank, val: FeatureBank, joint: Head) -> FitResult:
        from ltrec.rebalancing.class_counts import class_counts
        from ltrec.rebalancing.spectral import SpectralFamily, eigenbasis, moments

        views = train.views if self.views == "all" else 1
        counts = class_counts(train.labels, joint.classes, method="ridge").double()
        shares = counts.new_full(counts.shape, 1 / len(counts))
        center, means, scatter = moments(train.features[:views].flatten(0, 1), train.labels.repeat(views), shares)
        values, vectors, mean_value = eigenbasis(scatter)
        inverses = [1 / (len(counts) * (values + strength * mean_value)) for strength in self.lambdas]
        family = SpectralFamily(vectors, center, means @ vectors, inverses, [shares] * len(inverses))
        index, balanced, head = family.choose(val)
        chosen: Row = {"lambda": self.lambdas[index]}
        curve: list[Row] = [
            {"lambda": strength, "val": value} for strength, value in zip(self.lambdas, balanced, strict=True)
        ]
        return FitResult(head, chosen, curve)
