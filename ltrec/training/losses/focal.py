"""The focal loss."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from ltrec.training.losses.base import Loss

if TYPE_CHECKING:
    from torch import Tensor

# A power below 1 has no derivative at 0, where an image is classified beyond doubt.
_TINY = 1e-30


class Focal(Loss):
    """Cross-entropy that counts less for what is classified well already (Lin et al. 2017, equation 4).

    It knows nothing of class counts, and goes with any draws.
    """

    name: Literal["focal"]
    gamma: Annotated[float, Field(ge=0, le=10)] = 2.0
    """γ, how fast the loss of an image falls with its probability; 0 is cross-entropy."""

    def per_image(self, logits: Tensor, labels: Tensor) -> Tensor:  # type: ignore[override]
        """Return −(1 − p_y)^γ·log p_y of each image, (B,), for p = softmax(z)."""
        import torch.nn.functional as F

        loss = F.cross_entropy(logits, labels, reduction="none")
        missing = -(-loss).expm1()  # 1 − p_y
        return missing.clamp(min=_TINY) ** self.gamma * loss
