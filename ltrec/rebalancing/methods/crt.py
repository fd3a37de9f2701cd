"""Classifier re-training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ltrec.compute.precision import ProductPrecisionSetting
from ltrec.rebalancing.head_training import HeadTrainer, HeadTrainingSettings
from ltrec.rebalancing.methods.base import FitResult, Rebalancer

if TYPE_CHECKING:
    from ltrec.models.heads import Head
    from ltrec.rebalancing.feature_bank import FeatureBank


class CrtSettings(HeadTrainingSettings):
    """A linear classifier trained anew with class-balanced sampling."""

    method: Literal["crt"]
    init: Literal["random", "joint"] = "random"
    """Where W and b start: drawn anew (the paper's), or from the joint classifier."""
    precision: ProductPrecisionSetting = "auto"
    """Precision of the products; W and b are float32. auto: bf16 where the processor has it, on a CPU too."""

    def build(self, seed: int) -> Crt:
        return Crt(self.trainer(seed, self.precision), self.init, seed)


@dataclass(frozen=True)
class Crt(Rebalancer):
    """Trains W and b from random values, or on from joint's (Kang et al. 2020, section 4, cRT)."""

    trainer: HeadTrainer
    init: Literal["random", "joint"]
    seed: int

    def fit(self, train: FeatureBank, val: FeatureBank, joint: Head) -> FitResult:
        head = self._drawn_like(joint) if self.init == "random" else joint.duplicate()
        return FitResult(head, *self.trainer.fit(head, train, val))

    def _drawn_like(self, joint: Head) -> Head:
        import torch

        from ltrec.models.heads import LinearHead

        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.seed)
            return LinearHead.drawn(joint.classes, joint.dim).to(joint.temperature.device)
