"""The head of several heads. M members, N images, D feature dimensions, C classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from ltrec.models.heads.base import Head

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


class EnsembleHead(Head):
    """Logits Σ_m w_m·log softmax(z_m): the members' probabilities pooled by a weighted geometric mean (Genest 1984).

    Members that answer for the priors q_m are pooled to Π q_m^w_m: where all are of the form q_j ∝ n_j^p, the pool is of
    that form, and its p is Σ w_m·p_m.

    Args:
        members: Heads with the same C and D, each with its own temperature.
        weights: w, none of it negative, with a sum of 1, (M,).

    Raises:
        ValueError: The members differ in C or D, or there are not as many weights.
    """

    kind = "ensemble"
    weights: Tensor
    members: Iterable[Head]

    def __init__(self, members: Sequence[Head], weights: Tensor) -> None:
        shapes = {(head.classes, head.dim) for head in members}
        if len(shapes) != 1 or weights.shape != (len(members),):
            raise ValueError(f"{len(members)} members of (C, D) {sorted(shapes)} and weights {tuple(weights.shape)}")
        super().__init__(*shapes.pop())
        self.members = nn.ModuleList(members)
        self.register_buffer("weights", weights)
        self.prior_power = float(weights @ weights.new_tensor([head.prior_power for head in members]))

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
                {"head": head.kind, "options": head.options(), "prior_power": head.prior_power} for head in self.members
            ]
        }

    def scores(self, features: Tensor) -> Tensor:
        return pooled([head(features) for head in self.members], self.weights)


def pooled(logits: Sequence[Tensor], weights: Tensor) -> Tensor:
    """Return Σ_m w_m·log softmax(z_m), (N, C), of M members' logits (N, C) and weights (M,)."""
    log_probabilities = [weight * z.log_softmax(dim=1) for weight, z in zip(weights, logits, strict=True)]
    return torch.stack(log_probabilities).sum(dim=0)
