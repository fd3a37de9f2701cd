"""τ-normalisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from ltrec.rebalancing.adjusting import Adjustable
from ltrec.rebalancing.complexity import Complexity
from ltrec.rebalancing.methods.base import FitResult, Rebalancer, Row, Tau

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from ltrec.models.heads import Head
    from ltrec.rebalancing.feature_bank import FeatureBank


class TauNormSettings(Adjustable):
    """w_j / ‖w_j‖^τ without bias; τ is chosen on val from the grid."""

    complexity: ClassVar = Complexity.COMPUTED
    needs_linear_joint: ClassVar[bool] = True

    method: Literal["tau_norm"]
    taus: Annotated[list[Tau], Field(min_length=1)] = [step / 10 for step in range(21)]
    """The grid; 0 gives the joint weights, 1 unit rows."""

    def build(self, seed: int) -> TauNorm:  # noqa: ARG002 - nothing is random
        return TauNorm(self.taus)


@dataclass(frozen=True)
class TauNorm(Rebalancer):
    """Rescales each class's weights by a power of their norm (Kang et al. 2020, eq. 3)."""

    taus: Sequence[float]

    def fit(self, train: FeatureBank, val: FeatureBank, joint: Head) -> FitResult:  # noqa: ARG002
        from ltrec.models.heads.linear import LinearHead, linear_of, tau_normalised
        from ltrec.rebalancing.selection import choose_on_val

        weight = linear_of(joint).weight.detach()
        scales = [weight.norm(dim=1) ** tau for tau in self.taus]

        def rescaled(features: Tensor) -> Iterator[Tensor]:
            """Return the logits w_j·x / ‖w_j‖^τ for each τ, (n, C), which share one product."""
            product = features @ weight.T
            return (product / scale for scale in scales)

        chosen, balanced = choose_on_val(rescaled, len(scales), val.plain, val.labels)
        tau = self.taus[chosen]
        curve: list[Row] = [{"tau": t, "val": value} for t, value in zip(self.taus, balanced, strict=True)]
        return FitResult(LinearHead(tau_normalised(weight, tau), None), {"tau": tau}, curve)
