"""Balanced softmax, the logit-adjusted loss at τ = 1 under the name that many papers give it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ltrec.training.losses.base import log_prior
from ltrec.training.losses.prior_adjusted import PriorAdjusted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ltrec.training.losses.base import Constants


class BalancedSoftmax(PriorAdjusted):
    """Cross-entropy of z + log n, where log n and log π give the same loss (Ren et al. 2020)."""

    name: Literal["balanced_softmax"]

    def constants(self, class_counts: NDArray[np.int64]) -> Constants:
        """Return log π, (C,)."""
        return {"offset": log_prior(class_counts)}
