"""Cross-entropy, the loss of joint training and of cRT in Kang et al. 2020."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ltrec.settings import Fraction
from ltrec.training.losses.base import Loss

if TYPE_CHECKING:
    from torch import Tensor


class CrossEntropy(Loss):
    """Cross-entropy of the softmax, its targets smoothed if wished (Szegedy et al. 2016, section 7)."""

    name: Literal["cross_entropy"] = "cross_entropy"
    label_smoothing: Fraction = 0.0
    """Share of each target that is spread evenly over all classes."""

    def per_image(self, logits: Tensor, labels: Tensor) -> Tensor:  # type: ignore[override]
        """Return −Σ_j t_j·log softmax(z)_j of each image, (B,)."""
        import torch.nn.functional as F

        return F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing, reduction="none")
