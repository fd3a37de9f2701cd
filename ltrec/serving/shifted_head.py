"""A head for another class prior. N images, D feature dimensions, C classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ltrec.models.heads.base import Head

if TYPE_CHECKING:
    from torch import Tensor


class ShiftedHead(Head):
    """Gives a head's logits, after its temperature, plus a constant for each class, and shares its parameters.

    With log π′ − log q as the constants, a head that answers for the class prior q answers for π′ (Saerens et al.
    2002).

    Args:
        head: The head.
        shift: The constants, (C,).
    """

    shift: Tensor

    def __init__(self, head: Head, shift: Tensor) -> None:
        super().__init__(head.classes, head.dim)
        self.head = head
        self.register_buffer("shift", shift)

    def scores(self, features: Tensor) -> Tensor:
        return self.head(features) + self.shift  # type: ignore[no-any-return]
