"""Learnable weight scaling."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ltrec.head_training import HeadTrainer, HeadTrainingSettings
from ltrec.rebalancers.base import Fitted, Rebalancer
from ltrec.settings import PositiveInt

if TYPE_CHECKING:
    from ltrec.features import FeatureBank
    from ltrec.heads import LinearHead


class LwsSettings(HeadTrainingSettings):
    """One scale a class on the joint classifier's logits, trained with class-balanced sampling."""

    method: Literal["lws"]
    epochs: PositiveInt = 5

    def build(self, seed: int) -> Lws:
        return Lws(self.trainer(seed))


class Lws(Rebalancer):
    """Learns s in s_j·(w_j·x + b_j); W and b stay (Kang et al. 2020, eq. 7)."""

    def __init__(self, trainer: HeadTrainer) -> None:
        self.trainer = trainer

    def fit(self, train: FeatureBank, val: FeatureBank, joint: LinearHead) -> Fitted:
        import torch

        from ltrec.heads import ClassScales, ScaledHead

        # W and b are fixed, so the joint logits are computed once and the scales learn on them.
        with torch.no_grad():
            train_logits, val_logits = joint.scores(train.features), joint.scores(val.plain)
        scales = ClassScales(classes=joint.weight.shape[0]).to(train_logits.device)
        epoch, curve = self.trainer.fit(scales, (train_logits, train.labels), (val_logits, val.labels))
        bias = None if joint.bias is None else joint.bias.detach().clone()
        head = ScaledHead(joint.weight.detach().clone(), bias, scales.scale.detach())
        return Fitted(head, {"epoch": epoch}, curve)
