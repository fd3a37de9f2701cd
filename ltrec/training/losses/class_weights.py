"""Weights of the classes by their effective number of images, which any loss can take. C classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from ltrec.settings import Fraction, Settings

if TYPE_CHECKING:
    from numpy.typing import NDArray


class ClassWeights(Settings):
    """Each class's loss is multiplied by (1 − β)/(1 − β^n_j), scaled (Cui et al. 2019).

    From the first epoch on that is the class-balanced loss, from 80 % of them on deferred re-weighting, DRW (Cao et al.
    2019). The mean weight of a training image is 1: as in Cao's code, which divides by the weights that a
    batch has, the learning rate means the same with and without weights.
    """

    beta: Annotated[float, Field(gt=0, lt=1)] = 0.9999
    """β: near 0 all classes weigh the same, near 1 as 1 / n_j."""
    start: Fraction = 0.0
    """Share of the epochs after which the weights begin to count; before, each is 1. 0.8 of 200 epochs: 161 to 200."""
    twice: bool = False
    """Allow them on draws that are balanced already, where they correct a second time."""

    def power(self, class_counts: NDArray[np.int64]) -> float:
        """Return the t of the n_j^(−t) that the weights of counts (C,) are most like, by least squares of logs."""
        log_counts, log_weights = np.log(class_counts), np.log(self.weights(class_counts))
        spread = log_counts - log_counts.mean()
        return -float(spread @ log_weights / (spread @ spread)) if spread.any() else 0.0

    def weights(self, class_counts: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the weight of each class, (C,), whose mean over the training images is 1.

        Args:
            class_counts: The training images of each class, (C,), none of which is 0.
        """
        # 1 − β^n, exact for β near 1, too.
        effective = -np.expm1(class_counts * np.log(self.beta))
        return np.asarray(class_counts.sum() / (effective * (class_counts / effective).sum()))
