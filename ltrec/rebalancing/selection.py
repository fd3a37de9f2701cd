"""How anything is chosen on the validation split: one score, one rule for ties."""

from __future__ import annotations

import itertools
import math
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import torch

from ltrec.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch import Tensor

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
        self._finite = bool(all_finite(logits))
        self.balanced = balanced_accuracy(logits, labels) if self._finite else 0.0

    @cached_property
    def log_likelihood(self) -> float:
        return -calibrated(self._logits, self._labels)[1] if self._finite else -math.inf

    def __gt__(self, other: Candidate) -> bool:
        if self.balanced != other.balanced:
            return self.balanced > other.balanced
        return self.log_likelihood > other.log_likelihood


def best(
    candidates: Callable[[Tensor], Iterable[Tensor]], count: int, features: Tensor, labels: Tensor
) -> tuple[int, list[float]]:
    """Which of K candidates is the best on val, the first of equals, and the balanced accuracy of each.

    Args:
        candidates: From some features (n, D) to the logits (n, C) of each candidate, always in the same order. What
            they share is computed once, and no candidate's logits of all images are held but to break a tie.
        count: K.
        features: Of val, (N, D), perhaps not on the device of the labels.
        labels: Of val, (N,).
    """
    blocks = torch.split(features, _IMAGES_AT_ONCE)
    predicted = torch.empty((count, len(labels)), dtype=torch.int64, device=labels.device)
    finite = torch.ones(count, dtype=torch.bool, device=labels.device)
    for of_block, block in zip(torch.split(predicted, _IMAGES_AT_ONCE, dim=1), blocks, strict=True):
        for place, logits in enumerate(candidates(block.to(labels.device))):
            of_block[place] = logits.argmax(dim=1)
            finite[place] &= all_finite(logits)
    recalls = (mean_recall(answers, labels) for answers in predicted)
    balanced = [recall if sound else 0.0 for recall, sound in zip(recalls, finite.tolist(), strict=True)]
    tied = [place for place, reached in enumerate(balanced) if reached == max(balanced)]
    if len(tied) == 1:
        return tied[0], balanced

    def log_likelihood(place: int) -> float:
        logits = [next(itertools.islice(candidates(block.to(labels.device)), place, None)) for block in blocks]
        return Candidate(torch.cat(logits), labels).log_likelihood

    return max(tied, key=log_likelihood), balanced


def balanced_accuracy(logits: Tensor, labels: Tensor) -> float:
    """Of the largest logit of each image, (N, C) and (N,)."""
    return mean_recall(logits.argmax(dim=1), labels)


def all_finite(values: Tensor) -> Tensor:
    """Whether none is NaN or infinite, (); looks at the extremes, which takes a sixth of looking at each."""
    return torch.stack(values.aminmax()).isfinite().all()


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
        p = (z * factor).softmax(dim=1)
        mean = torch.linalg.vecdot(p, z)
        from_mean = z - mean[:, None]
        variance = torch.linalg.vecdot(p * from_mean, from_mean)
        right = z.gather(1, own[:, None])[:, 0]
        nll = torch.logsumexp(z * factor, dim=1) - factor * right
        sums += torch.stack([nll.sum(), (mean - right).sum(), variance.sum()]).double()
    nll, slope, curvature = (sums / len(labels)).tolist()
    return nll, slope, curvature
