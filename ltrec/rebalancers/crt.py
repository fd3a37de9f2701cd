"""Classifier re-training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ltrec.head_training import HeadTrainer, HeadTrainingSettings
from ltrec.rebalancers.base import Fitted, Rebalancer

if TYPE_CHECKING:
    from ltrec.features import FeatureBank
    from ltrec.heads import LinearHead


class CrtSettings(HeadTrainingSettings):
    """A linear classifier drawn anew and trained with class-balanced sampling."""

    method: Literal["crt"]

    def build(self, seed: int) -> Crt:
        return Crt(self.trainer(seed), seed)


class Crt(Rebalancer):
    """Trains W and b from random values (Kang et al. 2020, section 4.2, cRT)."""

    def __init__(self, trainer: HeadTrainer, seed: int) -> None:
        self.trainer = trainer
        self.seed = seed

    def fit(self, train: FeatureBank, val: FeatureBank, joint: LinearHead) -> Fitted:
        import torch

        from ltrec.heads import LinearHead

        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.seed)
            head = LinearHead.drawn(*joint.weight.shape).to(train.features.device)
        epoch, curve = self.trainer.fit(head, (train.features, train.labels), (val.plain, val.labels))
        return Fitted(head, {"epoch": epoch}, curve)
