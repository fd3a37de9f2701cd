"""Logit-adjusted cross-entropy, of which balanced softmax is the case τ = 1."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from ltrec.training.losses.base import log_prior
from ltrec.training.losses.prior_adjusted import PriorAdjusted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ltrec.training.losses.base import Constants


class LogitAdjusted(PriorAdjusted):
    """Cross-entropy of z + τ·log π; predictions are by z alone (Menon et al. 2021, equation 10)."""

    name: Literal["logit_adjusted"]
    tau: Annotated[float, Field(ge=0, le=10)] = 1.0
    """τ, how much of the prior is added while training; 1 is the balanced softmax."""

    def constants(self, class_counts: NDArray[np.int64]) -> Constants:
        """Return τ·log π, (C,)."""
        return {"offset": self.tau * log_prior(class_counts)}
