"""The head of several heads. M members, N images, D feature dimensions, C classes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from ltrec.models.heads.base import Head

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class EnsembleHead(Head):
    """Logits Σ_m w_m·log softmax(z_m): a weighted geometric mean of probabilities (Genest & Zidek 1986, section 3).

    Members that answer for the priors q_m are pooled to one for Π q_m^w_m: of priors q_j ∝ n_j^p the p are averaged.

    Args:
        members: Heads with the same C and D, each with its own temperature.
        weights: w, none of it negative, with a sum of 1, (M,).

    Raises:
        ValueError: The members differ in C or D, or there are not as many weights.
    """

    kind = "ensemble"
    weights: Tensor

    def __init__(self, members: Sequence[Head], weights: Tensor) -> None:
        shapes = {(head.classes, head.dim) for head in members}
        if len(shapes) != 1 or weights.shape != (len(members),):
            raise ValueError(f"{len(members)} members of (C, D) {sorted(shapes)} and weights {tuple(weights.shape)}")
        super().__init__(*shapes.pop())
        self.members = nn.ModuleList(members)
        self.register_buffer("weights", weights)
        powers = [weight * head.prior_power for weight, head in zip(weights.tolist(), members, strict=True)]
        self.prior_power = math.fsum(powers)

    @property
    def heads(self) -> list[Head]:
        """Return the members."""
        return [head for head in self.members if isinstance(head, Head)]

    @classmethod
    def of_state(cls, tensors: Mapping[str, Tensor], options: Mapping[str, Any], *, where: str) -> Self:
        from ltrec.models.heads import from_state  # which knows this kind too

        members = []
        for index, header in enumerate(options["members"]):
            prefix = f"members.{index}."
            own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
            members.append(from_state(own, header, where=where))
        return cls(members, tensors["weights"])

    def options(self) -> dict[str, Any]:
        """Return each member's header, as a file of its own would have it."""
        return {
            "members": [
                {"head": head.kind, "options": head.options(), "prior_power": head.prior_power} for head in self.heads
            ]
        }

    def scores(self, features: Tensor) -> Tensor:
        return pooled([head(features) for head in self.heads], self.weights)


def pooled(logits: Sequence[Tensor], weights: Tensor) -> Tensor:
    """Return Σ_m w_m·log softmax(z_m), (N, C), of M members' logits (N, C) and weights (M,)."""
    log_probabilities = [weight * z.log_softmax(dim=1) for weight, z in zip(weights, logits, strict=True)]
    return torch.stack(log_probabilities).sum(dim=0)
