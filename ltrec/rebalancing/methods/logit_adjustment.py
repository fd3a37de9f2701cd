"""Post-hoc logit adjustment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from ltrec.rebalancing.complexity import Complexity
from ltrec.rebalancing.methods.base import FitResult, Rebalancer, Row
from ltrec.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from ltrec.models.heads import Head
    from ltrec.rebalancing.feature_bank import FeatureBank

_Strength = Annotated[float, Field(ge=0, le=100)]
"""τ; what it does depends on how large the logits are."""


class LogitAdjustmentSettings(Settings):
    """The joint logits less τ·log π; τ is chosen on val from the grid."""

    complexity: ClassVar = Complexity.COMPUTED

    method: Literal["logit_adjustment"]
    taus: Annotated[list[_Strength], Field(min_length=1)] = [step / 10 for step in range(31)]
    """The grid of τ; 0 gives joint, 1 takes a calibrated joint head's prior out of it."""

    def build(self, seed: int) -> LogitAdjustment:  # noqa: ARG002 - nothing is random
        return LogitAdjustment(self.taus)


@dataclass(frozen=True)
class LogitAdjustment(Rebalancer):
    """Takes the training prior π out of the joint logits: z − τ·log π (Menon et al. 2021, equation 9)."""

    taus: Sequence[float]

    def fit(self, train: FeatureBank, val: FeatureBank, joint: Head) -> FitResult:
        import torch

        from ltrec.rebalancing.class_counts import log_prior
        from ltrec.rebalancing.selection import choose_on_val

        log_pi = log_prior(train.labels, joint.classes, method="logit_adjustment")

        def adjusted(features: Tensor) -> Iterator[Tensor]:
            """Return z − τ·log π for each τ, (n, C), which share z."""
            with torch.no_grad():
                logits = joint(features)
            return (logits - tau * log_pi for tau in self.taus)

        chosen, balanced = choose_on_val(adjusted, len(self.taus), val.plain, val.labels)
        tau = self.taus[chosen]
        head = joint.shifted(-tau * log_pi)
        head.prior_power = 0.0
        curve: list[Row] = [{"tau": t, "val": value} for t, value in zip(self.taus, balanced, strict=True)]
        return FitResult(head, {"tau": tau}, curve)
