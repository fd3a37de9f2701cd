"""Logit-adjusted cross-entropy, of which balanced softmax is the case τ = 1."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from ltrec.training.losses.base import Loss, log_prior

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from ltrec.training.losses.base import Constants


class LogitAdjusted(Loss):
    """Cross-entropy of z + τ·log π; predictions are by z alone (Menon et al. 2021, equation 10; Ren et al. 2020)."""

    name: Literal["logit_adjusted"]
    corrects_prior: ClassVar[bool] = True
    tau: Annotated[float, Field(ge=0, le=10)] = 1.0
    """τ, how much of the prior is added while training; 1 is the balanced softmax."""
    twice: bool = False
    """Allow it on draws that are balanced already, where it corrects a second time."""

    def constants(self, class_counts: NDArray[np.int64]) -> Constants:
        """Return τ·log π, (C,)."""
        return {"offset": self.tau * log_prior(class_counts)}

    def per_image(self, logits: Tensor, labels: Tensor, offset: Tensor) -> Tensor:  # type: ignore[override]
        """Return −log softmax(z + τ·log π)_y of each image, (B,)."""
        import torch.nn.functional as F

        return F.cross_entropy(logits + offset, labels, reduction="none")
