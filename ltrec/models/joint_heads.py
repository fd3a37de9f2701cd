"""The heads that a backbone may be trained with. D feature dimensions, C classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ltrec.settings import Settings

if TYPE_CHECKING:
    from ltrec.models.heads import LinearHead


class LinearJointHead(Settings):
    """Logits w_j·x + b_j, as in Kang et al. 2020."""

    name: Literal["linear"] = "linear"

    def build(self, classes: int, dim: int) -> LinearHead:
        """Return a new head from features (N, D) to logits (N, C)."""
        from ltrec.models.heads import LinearHead

        return LinearHead.drawn(classes, dim)


JointHeadSettings = LinearJointHead
"""The one kind so far; with a second it becomes a union whose discriminator is `name`."""
