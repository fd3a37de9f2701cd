"""The place of a head behind a backbone that was kept as it is. N images, D feature dimensions, C classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from ltrec.errors import UserError
from ltrec.models.heads.base import Head

if TYPE_CHECKING:
    from torch import Tensor


class UnfittedHead(Head):
    """Knows how many classes there are and gives no logits, so that nothing random passes for a classifier.

    A network's file has it where no training gave the network a head; no head's file does.
    """

    kind = "unfitted"

    def options(self) -> dict[str, Any]:
        return {"classes": self.classes, "dim": self.dim}

    def scores(self, features: Tensor) -> NoReturn:
        """Refuse.

        Raises:
            UserError: Always.
        """
        del features
        raise UserError(
            "the network was not trained (represent.epochs: 0) and has no classifier of its own; `ltrec featurize` fits"
            " one"
        )
