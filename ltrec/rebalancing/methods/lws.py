"""Learnable weight scaling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import model_validator

from ltrec.rebalancing.methods.base import FitResult, HeadTrainingSettings, Rebalancer
from ltrec.settings import PositiveInt, conflict
from ltrec.training.losses.base import refuse_without_cosines

if TYPE_CHECKING:
    from ltrec.models.heads import Head
    from ltrec.rebalancing.feature_bank import FeatureBank
    from ltrec.rebalancing.head_training import HeadTrainer


class LwsSettings(HeadTrainingSettings):
    """One scale a class on the joint classifier's logits, trained with class-balanced sampling."""

    needs_linear_joint: ClassVar[bool] = True

    method: Literal["lws"]
    epochs: PositiveInt = 5
    scale_bias: bool = True
    """Scale w_j·x + b_j as a whole (the paper's); false: w_j·x alone, b_j stays as it is."""

    @model_validator(mode="after")
    def _only_scales_learn(self) -> Self:
        if self.max_norm is not None:
            raise conflict(("max_norm",), "bounds the rows of W, and lws trains none; allowed here: null")
        refuse_without_cosines(self.loss, "linear")
        return self

    def build(self, seed: int) -> Lws:
        return Lws(self.trainer(seed), self.scale_bias)


@dataclass(frozen=True)
class Lws(Rebalancer):
    """Learns s in s_j·(w_j·x + b_j), or in s_j·(w_j·x) + b_j; W and b stay (Kang et al. 2020, eq. 4)."""

    trainer: HeadTrainer
    scale_bias: bool

    def fit(self, train: FeatureBank, val: FeatureBank, joint: Head) -> FitResult:
        import torch

        from ltrec.models.heads.linear import ScaledHead, ScaledLogits, linear_of
        from ltrec.rebalancing.beside_logits import bank_of_logits, can_be_kept

        weight, bias = linear_of(joint).cloned_parameters()
        head = ScaledHead(weight, bias, torch.ones_like(weight[:, 0]), scale_bias=self.scale_bias).to(weight.device)
        if train.precomputed and can_be_kept(joint.classes, train, val):
            # The joint logits are computed once, instead of at each step.
            on_logits = ScaledLogits(head)
            fitted = self.trainer.fit(on_logits, bank_of_logits(train, joint), bank_of_logits(val, joint))
            head.prior_power = on_logits.prior_power
        else:
            fitted = self.trainer.fit(head, train, val)
        return FitResult(head, *fitted)
