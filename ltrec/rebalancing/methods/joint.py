"""The classifier that the representation was learnt with: the baseline of every comparison."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from ltrec.rebalancing.complexity import Complexity
from ltrec.rebalancing.methods.base import FitResult, Rebalancer
from ltrec.settings import Settings

if TYPE_CHECKING:
    from ltrec.models.heads import Head
    from ltrec.rebalancing.feature_bank import FeatureBank


class JointSettings(Settings):
    """No rebalancing."""

    complexity: ClassVar = Complexity.AS_TRAINED

    method: Literal["joint"]

    def build(self, seed: int) -> Joint:  # noqa: ARG002 - nothing is random
        return Joint()


class Joint(Rebalancer):
    """Gives the joint classifier as it is (Kang et al. 2020, section 3)."""

    def fit(self, train: FeatureBank, val: FeatureBank, joint: Head) -> FitResult:  # noqa: ARG002
        return FitResult(joint.duplicate())
