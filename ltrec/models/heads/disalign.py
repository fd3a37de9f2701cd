"""The head of distribution alignment, DisAlign (Zhang et al. 2021). N images, D feature dimensions, C classes."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ltrec.models.heads.base import Head


class DisAlignHead(Head):
    """Aligns a linear head's logits z class by class, as far as each image needs it (Zhang et al. 2021, equation 6).

    Logits are σ·(α_j·z_j + β_j) + (1 − σ)·z_j with σ = sigmoid(v·x + c); only α, β, v and c learn.

    Args:
        weight: W of z = W·x + b, (C, D).
        bias: b, (C,), or None.
        scale: α, (C,).
        shift: β, (C,).
        confidence: v, (D,).
        confidence_bias: c, ().
    """

    kind = "disalign"

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        scale: Tensor,
        shift: Tensor,
        confidence: Tensor,
        confidence_bias: Tensor,
    ) -> None:
        super().__init__(*weight.shape)
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self.scale, self.shift = nn.Parameter(scale), nn.Parameter(shift)
        self.confidence, self.confidence_bias = nn.Parameter(confidence), nn.Parameter(confidence_bias)

    def scores(self, features: Tensor) -> Tensor:
        return self.aligned(F.linear(features, self.weight, self.bias), features)

    def aligned(self, logits: Tensor, features: Tensor) -> Tensor:
        """Return the aligned logits (N, C) of logits z (N, C) and features (N, D)."""
        sigma = (features @ self.confidence + self.confidence_bias).sigmoid()[:, None]
        return logits + sigma * ((self.scale - 1) * logits + self.shift)


class AlignedLogits(Head):
    """Takes features and joint logits side by side, (N, D + C), and shares the parameters of a DisAlign head."""

    def __init__(self, head: DisAlignHead) -> None:
        super().__init__(head.classes, head.dim + head.classes)
        self.head = head

    def scores(self, features: Tensor) -> Tensor:
        own, logits = features[:, : self.head.dim], features[:, self.head.dim :]
        return self.head.aligned(logits, own)
