"""The vector-scaling loss, VS: logits are scaled class by class, and adjusted. B images, C classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from ltrec.training.losses.base import log_prior
from ltrec.training.losses.prior_adjusted import PriorAdjusted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from ltrec.training.losses.base import Constants


class VectorScaling(PriorAdjusted):
    """Cross-entropy of z_j·(n_j/n_max)^γ + τ·log π_j; predictions are by z alone (Kini et al. 2021).

    The factor goes on where the offset has lost its hold: in a training that separates the classes completely.
    """

    name: Literal["vector_scaling"]
    gamma: Annotated[float, Field(ge=0, le=2)] = 0.05
    """γ, how much smaller the logits of rare classes are taken while training; 0 is the logit-adjusted loss."""
    tau: Annotated[float, Field(ge=0, le=10)] = 1.0
    """τ, how much of the prior is added while training."""

    def constants(self, class_counts: NDArray[np.int64]) -> Constants:
        """Return τ·log π and (n_j/n_max)^γ, both (C,)."""
        offset = self.tau * log_prior(class_counts)
        return {"offset": offset, "factor": (class_counts / class_counts.max()) ** self.gamma}

    def per_image(self, logits: Tensor, labels: Tensor, offset: Tensor, factor: Tensor) -> Tensor:  # type: ignore[override]
        """Return −log softmax(z·factor + offset)_y of each image, (B,)."""
        return super().per_image(logits * factor, labels, offset)
