"""Classifier re-training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self

from pydantic import model_validator

from ltrec.compute.precision import ProductPrecisionSetting
from ltrec.errors import UserError
from ltrec.models.joint_heads import JointHeadSettings, LinearJointHead
from ltrec.rebalancing.methods.base import FitResult, HeadTrainingSettings, Rebalancer
from ltrec.training.losses.base import refuse_without_cosines

if TYPE_CHECKING:
    from collections.abc import Callable

    from ltrec.models.heads import Head
    from ltrec.rebalancing.feature_bank import FeatureBank
    from ltrec.rebalancing.head_training import HeadTrainer


class CrtSettings(HeadTrainingSettings):
    """A linear, or cosine, classifier trained anew with class-balanced sampling."""

    method: Literal["crt"]
    head: JointHeadSettings = LinearJointHead()
    """The classifier that is trained."""
    init: Literal["random", "joint"] = "random"
    """Where W and b start: drawn anew (the paper's), or from the joint classifier, which must be such a one then."""
    precision: ProductPrecisionSetting = "auto"
    """Precision of the products; W and b are float32. auto: bf16 where the processor has it, on a CPU too."""

    @model_validator(mode="after")
    def _loss_fits_the_head(self) -> Self:
        refuse_without_cosines(self.loss, self.head.name)
        return self

    def build(self, seed: int) -> Crt:
        return Crt(self.trainer(seed, self.precision), self.head.build, self.init, seed)


@dataclass(frozen=True)
class Crt(Rebalancer):
    """Trains W and b from random values, or on from joint's (Kang et al. 2020, section 4, cRT)."""

    trainer: HeadTrainer
    new_head: Callable[[int, int], Head]
    """Draws a head from C and D."""
    init: Literal["random", "joint"]
    seed: int

    def fit(self, train: FeatureBank, val: FeatureBank, joint: Head) -> FitResult:
        head = self._drawn_like(joint)
        if self.init == "joint":
            begun = joint.duplicate()
            if (begun.kind, begun.options()) != (head.kind, head.options()):
                raise UserError(
                    f"init: joint goes on with the joint classifier, which is {_described(begun)}, and head asks for"
                    f" {_described(head)}; allowed: init: random, or a head like it"
                )
            head = begun
        return FitResult(head, *self.trainer.fit(head, train, val))

    def _drawn_like(self, joint: Head) -> Head:
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.seed)
            return self.new_head(joint.classes, joint.dim).to(joint.temperature.device)


def _described(head: Head) -> str:
    return " ".join([head.kind, *(f"with {name} {value}" for name, value in head.options().items())])
