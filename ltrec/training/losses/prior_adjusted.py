"""What losses share that expect the class prior: the softmax of logits to which it is added. B images, C classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ltrec.training.losses.base import Loss

if TYPE_CHECKING:
    from torch import Tensor


class PriorAdjusted(Loss):
    """Cross-entropy of logits plus an offset that favours the frequent classes; predictions are without it."""

    corrects_prior: ClassVar[bool] = True
    twice: bool = False
    """Allow it on draws that are balanced already, where it corrects a second time."""

    def per_image(self, logits: Tensor, labels: Tensor, offset: Tensor) -> Tensor:  # type: ignore[override]
        """Return −log softmax(z + offset)_y of each image, (B,)."""
        import torch.nn.functional as F

        return F.cross_entropy(logits + offset, labels, reduction="none")
