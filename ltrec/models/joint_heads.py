"""The heads that a backbone may be trained with. D feature dimensions, C classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from ltrec.settings import Settings

if TYPE_CHECKING:
    from ltrec.models.heads import CosineHead, LinearHead


class LinearJointHead(Settings):
    """Logits w_j·x + b_j, as in Kang et al. 2020."""

    name: Literal["linear"] = "linear"

    def build(self, classes: int, dim: int) -> LinearHead:
        """Return a new head from features (N, D) to logits (N, C)."""
        from ltrec.models.heads import LinearHead

        return LinearHead.drawn(classes, dim)


class CosineJointHead(Settings):
    """Logits s·cos θ_j, with θ_j the angle between x and w_j, as LDAM has them (Cao et al. 2019)."""

    name: Literal["cosine"]
    scale: Annotated[float, Field(gt=0, le=1000)] = 30.0
    """s: by how much the logits of two classes can differ is twice that."""

    def build(self, classes: int, dim: int) -> CosineHead:
        """Return a new head from features (N, D) to logits (N, C)."""
        from ltrec.models.heads import CosineHead

        return CosineHead.drawn(classes, dim, self.scale)


JointHeadSettings = Annotated[LinearJointHead | CosineJointHead, Field(discriminator="name")]
