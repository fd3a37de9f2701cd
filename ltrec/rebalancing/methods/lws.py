"""Learnable weight scaling."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ltrec.rebalancing.head_training import HeadTrainer, HeadTrainingSettings
from ltrec.rebalancing.methods.base import FitResult, Rebalancer
from ltrec.settings import PositiveInt

if TYPE_CHECKING:
    from ltrec.models.heads import Head
    from ltrec.rebalancing.feature_bank import FeatureBank

# Joint logits of the training images up to this size are kept while the scales learn.
_LOGIT_BYTES = 1 << 30


class LwsSettings(HeadTrainingSettings):
    """One scale a class on the joint classifier's logits, trained with class-balanced sampling."""

    method: Literal["lws"]
    epochs: PositiveInt = 5
    scale_bias: bool = True
    """Scale w_j·x + b_j as a whole (the paper's); false: w_j·x alone, b_j stays as it is."""

    def build(self, seed: int) -> Lws:
        return Lws(self.trainer(seed), scale_bias=self.scale_bias)


class Lws(Rebalancer):
    """Learns s in s_j·(w_j·x + b_j), or in s_j·(w_j·x) + b_j; W and b stay (Kang et al. 2020, eq. 4)."""

    def __init__(self, trainer: HeadTrainer, *, scale_bias: bool) -> None:
        self.trainer = trainer
        self.scale_bias = scale_bias

    def fit(self, train: FeatureBank, val: FeatureBank, joint: Head) -> FitResult:
        import torch

        from ltrec.models.heads import ScaledHead, ScaledLogits, linear_of

        weight, bias = linear_of(joint).copied()
        head = ScaledHead(weight, bias, torch.ones_like(weight[:, 0]), scale_bias=self.scale_bias)
        if train.precomputed and 4 * train.views * len(train.labels) * len(weight) <= _LOGIT_BYTES:
            # The joint logits once, instead of at each step.
            chosen, curve = self.trainer.fit(ScaledLogits(head), _logits(train, joint), _logits(val, joint))
        else:
            chosen, curve = self.trainer.fit(head, train, val)
        return FitResult(head, chosen, curve)


def _logits(bank: FeatureBank, joint: Head) -> FeatureBank:
    """A bank of the joint logits: views, images and classes, (V, N, C)."""
    import torch

    from ltrec.models.heads import logits_in_blocks
    from ltrec.rebalancing.feature_bank import FeatureBank

    shape = (bank.views, len(bank.labels), joint.classes)
    logits = torch.empty(shape, device=joint.temperature.device)
    for view, features in zip(logits, bank.features, strict=True):
        for some, of_block in logits_in_blocks(joint, features):
            view[some] = of_block
    return FeatureBank(logits, bank.labels, bank.header)
