"""Heads with one weight vector a class, rescaled or not. N images, D feature dimensions, C classes."""

from __future__ import annotations

from typing import Any, Self

import torch.nn.functional as F
from torch import Tensor, nn

from ltrec.errors import UserError
from ltrec.models.heads.base import Head


class LinearHead(Head):
    """Logits w_j·x + b_j: the joint classifier, cRT, and τ-normalised weights (without bias).

    Args:
        weight: W, (C, D).
        bias: b, (C,), or None.
    """

    kind = "linear"

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(*weight.shape)
        self.weight = nn.Parameter(weight)
        self.bias = None if bias is None else nn.Parameter(bias)

    @classmethod
    def drawn(cls, classes: int, dim: int) -> Self:
        """Return a head with random weights, as `torch.nn.Linear` draws them."""
        linear = nn.Linear(dim, classes)
        return cls(linear.weight.detach(), linear.bias.detach())

    def cloned_parameters(self) -> tuple[Tensor, Tensor | None]:
        """Return copies of W (C, D) and b (C,), which no longer follow this head."""
        return self.weight.detach().clone(), None if self.bias is None else self.bias.detach().clone()

    def scores(self, features: Tensor) -> Tensor:
        return F.linear(features, self.weight, self.bias)


class PublishedLwsHead(LinearHead):
    """W and b of an imported LWS checkpoint; its scales (C,) lie beside them and take no part in the scores."""

    kind = "published_lws"
    published_scale: Tensor

    def __init__(self, weight: Tensor, bias: Tensor | None, published_scale: Tensor) -> None:
        super().__init__(weight, bias)
        self.register_buffer("published_scale", published_scale)

    def duplicate(self) -> LinearHead:
        """Return the linear head alone: the scales belong to no other method."""
        head = LinearHead(*self.cloned_parameters())
        head.prior_power = self.prior_power
        return head


class ScaledHead(Head):
    """Scales a linear head class by class, as learnable weight scaling, LWS, does; only the scales learn.

    Args:
        weight: W, (C, D).
        bias: b, (C,), or None.
        scale: s, (C,).
        scale_bias: Whether logits are s_j·(w_j·x + b_j) as in Kang et al. 2020, eq. 4; else s_j·(w_j·x) + b_j.
    """

    kind = "scaled"

    def __init__(self, weight: Tensor, bias: Tensor | None, scale: Tensor, *, scale_bias: bool = True) -> None:
        super().__init__(*weight.shape)
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self.scale = nn.Parameter(scale)
        self.scale_bias = scale_bias

    def options(self) -> dict[str, Any]:
        return {"scale_bias": self.scale_bias}

    def scores(self, features: Tensor) -> Tensor:
        if self.scale_bias or self.bias is None:
            return self.scale * F.linear(features, self.weight, self.bias)
        return self.scale * F.linear(features, self.weight) + self.bias


class ScaledLogits(Head):
    """Takes joint logits w_j·x + b_j (N, C) in place of features and shares the scales of a scaled head."""

    def __init__(self, head: ScaledHead) -> None:
        super().__init__(head.classes, head.classes)
        self.scale, self.bias = head.scale, None if head.scale_bias else head.bias

    def scores(self, logits: Tensor) -> Tensor:
        return self.scale * logits if self.bias is None else self.scale * (logits - self.bias) + self.bias


class OnScaledFeatures(Head):
    """Gives a head's logits of features (N, D) times a factor, and shares its parameters."""

    def __init__(self, head: Head, factor: float) -> None:
        super().__init__(head.classes, head.dim)
        self.head, self.factor, self.cosine_scale = head, factor, head.cosine_scale

    def scores(self, features: Tensor) -> Tensor:
        return self.head.scores(features * self.factor)


def linear_of(joint: Head) -> LinearHead:
    """Return the joint head of a method that works on w_j and b_j.

    Raises:
        UserError: The joint head is of another kind.
    """
    if not isinstance(joint, LinearHead):
        raise UserError(
            f"the method rescales the weights of a linear joint head, and this one is {joint.kind}; allowed with it:"
            " another method, or represent.head: {name: linear}"
        )
    return joint


def tau_normalised(weight: Tensor, tau: float) -> Tensor:
    """Return w_j / ‖w_j‖^τ for each row of W, (C, D) (Kang et al. 2020, eq. 3)."""
    norms: Tensor = weight.norm(dim=1, keepdim=True)
    return weight / norms**tau
