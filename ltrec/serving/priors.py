"""Class priors: what a head answers for, what it shall answer for, and how the latter is estimated from images.

N images, C classes. A classifier calibrated for the class prior q gives p(y|x); where the classes come with the prior
π′ it is p′(y|x) ∝ p(y|x)·π′_y/q_y, or z + log π′ − log q in logits (Saerens et al. 2002, equation 2.4).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Prior = NDArray[np.float64]

_ROWS_AT_ONCE = 1024


def counted_prior(class_counts: NDArray[np.int64], power: float) -> Prior:
    """Return the class prior q_j ∝ n_j^power, (C,), for class counts n: 1 is the training list's, 0 the uniform one."""
    weights = np.power(class_counts.astype(np.float64), power)
    return np.asarray(weights / weights.sum())


def reweighted(probabilities: NDArray[np.float32], prior: Prior, wanted: Prior) -> NDArray[np.float32]:
    """Return probabilities (N, C) that answer for the prior `wanted`, (C,), out of such that answer for `prior`, (C,).

    Rows with a number that is not finite become NaN.
    """
    with np.errstate(invalid="ignore"):
        products = probabilities * (wanted / prior)
        return np.asarray(products / products.sum(axis=1, keepdims=True), dtype=np.float32)


@dataclass(frozen=True)
class EstimatedPrior:
    """The prior (C,) of the images that probabilities were given for, and how many steps it took to stand still."""

    prior: Prior
    steps: int
    settled: bool
    """Whether it stood still; otherwise it was on its way still at the last step allowed."""


def estimate_prior(
    probabilities: NDArray[np.float32], prior: Prior, *, tolerance: float = 1e-6, most_steps: int = 2000
) -> EstimatedPrior:
    """Return the class prior of unlabelled images by expectation maximisation (Saerens et al. 2002, equation 2.9).

    π′ begins as q, and becomes the mean of p(y|x; π′) ∝ p(y|x)·π′_y/q_y until it stands still. The likelihood of the
    images rises with each step and has no other maxima. The probabilities are to be calibrated: what is too sure counts
    the predictions in place of the images.

    Args:
        probabilities: p(y|x), finite, (N, C).
        prior: The q that they answer for, positive, (C,).
        tolerance: It stands still when a step moves no more than this share of the images, Σ|Δπ′|/2.
        most_steps: When to stop at the latest.
    """
    current = prior
    for step in range(1, most_steps + 1):
        following = _mean_posterior(probabilities, current / prior)
        moved = np.abs(following - current).sum() / 2
        current = following
        if moved <= tolerance:
            return EstimatedPrior(current, step, settled=True)
    return EstimatedPrior(current, most_steps, settled=False)


def _mean_posterior(probabilities: NDArray[np.float32], ratio: Prior) -> Prior:
    """Return the mean of p_ij·r_j / Σ_k p_ik·r_k over the images for ratios r, (C,), without a second (N, C) array."""
    total = np.zeros(len(ratio))
    for block in _blocks(probabilities):
        products = block * ratio
        total += products.T @ (1 / products.sum(axis=1))
    mean = total / len(probabilities)
    return np.asarray(mean / mean.sum())


def _blocks(probabilities: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    for start in range(0, len(probabilities), _ROWS_AT_ONCE):
        yield probabilities[start : start + _ROWS_AT_ONCE]
