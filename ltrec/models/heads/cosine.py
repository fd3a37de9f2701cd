"""The head of scaled cosines. N images, D feature dimensions, C classes."""

from __future__ import annotations

from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ltrec.models.heads.base import Head


class CosineHead(Head):
    """Logits s·cos θ_j, with θ_j the angle between x and w_j: how long x and w_j are makes no difference.

    Cosines alone could not tell classes apart for any softmax: it would see logits between −1 and 1.

    Args:
        weight: W, (C, D).
        scale: s.
    """

    kind = "cosine"
    cosine_scale: float

    def __init__(self, weight: Tensor, scale: float) -> None:
        super().__init__(*weight.shape)
        self.weight = nn.Parameter(weight)
        self.cosine_scale = scale

    @classmethod
    def drawn(cls, classes: int, dim: int, scale: float) -> Self:
        """Return a head whose w_j have random directions and length 1."""
        return cls(F.normalize(torch.randn(classes, dim), dim=1), scale)

    def options(self) -> dict[str, Any]:
        return {"scale": self.cosine_scale}

    def scores(self, features: Tensor) -> Tensor:
        return self.cosine_scale * F.linear(F.normalize(features, dim=1), F.normalize(self.weight, dim=1))
