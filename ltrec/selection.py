"""How anything is chosen on the validation split: one score, one rule for ties."""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import torch

from ltrec.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

Item = TypeVar("Item")

_IMAGES_AT_ONCE = 1024
_SHARPNESS = math.exp(-4), math.exp(6)
_TOLERANCE, _MOST_STEPS = 1e-4, 60


class Score(NamedTuple):
    """Ordered: balanced accuracy first, then the likelihood of the labels under the best temperature."""

    balanced: float
    log_likelihood: float


class Candidate:
    """Logits (N, C) against labels (N,), ordered as `Score`; those that are not finite are right nowhere and come last.

    The likelihood takes several passes over the logits, so that it is fitted only where accuracies are equal.
    """

    def __init__(self, logits: Tensor, labels: Tensor) -> None:
        self._logits, self._labels = logits, labels
        self._finite = all_finite(logits)
        self.balanced = balanced_accuracy(logits, labels) if self._finite else 0.0

    @cached_property
    def log_likelihood(self) -> float:
        return -calibrated(self._logits, self._labels)[1] if self._finite else -math.inf

    def __gt__(self, other: Candidate) -> bool:
        if self.balanced != other.balanced:
            return self.balanced > other.balanced
        return self.log_likelihood > other.log_likelihood


def best(candidates: Iterable[tuple[Item, Tensor]], labels: Tensor) -> tuple[Item, list[float]]:
    """The item with the best logits, the first of equals, and the balanced accuracy of each.

    Only two candidates' logits are held at a time.

    Args:
        candidates: Items with their logits (N, C) on val; one at least.
        labels: Of val, (N,).
    """
    chosen: tuple[Item, Candidate] | None = None
    balanced = []
    for item, logits in candidates:
        candidate = Candidate(logits, labels)
        balanced.append(candidate.balanced)
        if chosen is None or candidate > chosen[1]:
            chosen = item, candidate
    assert chosen is not None, "there is at least one candidate"
    return chosen[0], balanced


def balanced_accuracy(logits: Tensor, labels: Tensor) -> float:
    """Of the largest logit of each image, (N, C) and (N,)."""
    return mean_recall(logits.argmax(dim=1), labels)


def all_finite(values: Tensor) -> bool:
    """Whether none is NaN or infinite; looks at the extremes, which takes a sixth of looking at each."""
    return all(bool(extreme.isfinite()) for extreme in values.aminmax())


def mean_recall(predicted: Tensor, labels: Tensor) -> float:
    """Balanced accuracy: the mean over the classes present of their accuracies, (N,) and (N,)."""
    counts = torch.bincount(labels)
    hits = torch.bincount(labels[predicted == labels], minlength=len(counts))
    return float((hits[counts > 0].double() / counts[counts > 0]).mean())


def calibrated(logits: Tensor, labels: Tensor) -> tuple[float, float]:
    """The temperature that fits the labels best, and the mean negative log-likelihood under it.

    Temperature scaling after Guo et al. 2017; it changes probabilities, never the class that wins. The likelihood is
    convex in 1/T: Newton's method, kept between bounds that close in, takes a few passes over the logits.

    Raises:
        UserError: the logits are not finite.
    """
    if not all_finite(logits):
        raise UserError("the logits on val are not finite: weights or features are too small or too large")
    spread = float(logits.std()) or 1.0
    # Of spread/T. Where val is told apart without a mistake, or not at all, a bound is what is found.
    low, high = _SHARPNESS
    sharpness = 1.0
    for _ in range(_MOST_STEPS):
        nll, slope, curvature = _likelihood(logits, labels, sharpness / spread)
        slope, curvature = slope / spread, curvature / spread**2
        low, high = (sharpness, high) if slope < 0 else (low, sharpness)
        step = slope / curvature if curvature > 0 else math.copysign(math.inf, slope) if slope else 0.0
        following = sharpness - step
        if not low <= following <= high:
            following = math.sqrt(low * high)
        if abs(following / sharpness - 1) < _TOLERANCE:
            break
        sharpness = following
    return spread / sharpness, nll


def _likelihood(logits: Tensor, labels: Tensor, factor: float) -> tuple[float, float, float]:
    """Mean negative log-likelihood of the labels under logits times a factor; its first and second derivatives by it.

    They are E_p[z] − z_y and Var_p[z], averaged over the images, for p = softmax(factor·z).
    """
    sums = torch.zeros(3, dtype=torch.float64, device=logits.device)
    for z, own in zip(torch.split(logits, _IMAGES_AT_ONCE), torch.split(labels, _IMAGES_AT_ONCE), strict=True):
        log_p = (z * factor).log_softmax(dim=1)
        p = log_p.exp()
        mean, square = (p * z).sum(dim=1), (p * z * z).sum(dim=1)
        nll, right = (values.gather(1, own[:, None])[:, 0] for values in (-log_p, z))
        sums += torch.stack([nll.sum(), (mean - right).sum(), (square - mean**2).sum()]).double()
    nll, slope, curvature = (sums / len(labels)).tolist()
    return nll, slope, curvature
