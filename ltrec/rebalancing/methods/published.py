"""The classifier of an imported checkpoint, as it was published."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from ltrec.rebalancing.complexity import Complexity
from ltrec.rebalancing.methods.base import FitResult, Rebalancer
from ltrec.settings import Settings

if TYPE_CHECKING:
    from ltrec.models.heads import Head
    from ltrec.rebalancing.feature_bank import FeatureBank


class PublishedSettings(Settings):
    """The classifier that `ltrec checkpoint import` took over, as it is: with its scales, if it has any from LWS."""

    complexity: ClassVar = Complexity.AS_TRAINED

    method: Literal["published"]

    def build(self, seed: int) -> Published:  # noqa: ARG002 - nothing is random
        return Published()


class Published(Rebalancer):
    """Gives s_j·(w_j·x + b_j) with the published s (Kang et al. 2020, eq. 4), or w_j·x + b_j where there is none."""

    def fit(self, train: FeatureBank, val: FeatureBank, joint: Head) -> FitResult:  # noqa: ARG002
        from ltrec.models.heads import PublishedLwsHead, ScaledHead

        if isinstance(joint, PublishedLwsHead):
            return FitResult(ScaledHead(*joint.cloned_parameters(), joint.published_scale.clone()))
        return FitResult(joint.duplicate())
