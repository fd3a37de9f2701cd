"""How anything is chosen on the validation split: one score, one rule for ties. N images, C classes."""

from __future__ import annotations

import itertools
import math
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import torch

from ltrec.errors import UserError
from ltrec.models.heads import logits_in_blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from torch import Tensor

    from ltrec.models.heads import Head

_IMAGES_AT_ONCE = 1024
# Logits up to this size are computed once; 10^5 images of 10^4 classes would take 4 GB.
_KEPT_BYTES = 1 << 30
# The search for a temperature: bounds of the logits' spread over T, relative tolerance, and number of steps.
_SHARPNESS = math.exp(-4), math.exp(6)
_TOLERANCE, _MOST_STEPS = 1e-4, 60


class Score(NamedTuple):
    """What a head reaches on val; the larger is the better, by balanced accuracy first."""

    balanced: float
    log_likelihood: float
    """The labels' mean log-likelihood at the temperature that fits them best."""


class LogitBlocks:
    """Logits (N, C), some images at a time, to be gone through as often as one likes.

    Args:
        compute: Gives the blocks (n, C), from the first image to the last, and each time the same ones.
        keep: Whether they are computed once, if memory allows; else anew each time.
    """

    def __init__(self, compute: Callable[[], Iterable[Tensor]], *, keep: bool = True) -> None:
        self._compute, self._most = compute, _KEPT_BYTES if keep else 0
        self._kept: list[Tensor] | None = None

    def __iter__(self) -> Iterator[Tensor]:
        return self._computed() if self._kept is None else iter(self._kept)

    def _computed(self) -> Iterator[Tensor]:
        kept: list[Tensor] = []
        size = 0
        for block in self._compute():
            size += block.nbytes
            if size <= self._most:
                kept.append(block)
            else:
                kept.clear()
            yield block
        if size <= self._most:
            self._kept = kept


def head_logits(head: Head, features: Tensor, *, keep: bool = True) -> LogitBlocks:
    """Return a head's logits of features (N, D), which lie on its device or in the host's memory.

    The head is to stay as it is while they are gone through.
    """
    return LogitBlocks(lambda: (block for _, block in logits_in_blocks(head, features)), keep=keep)


class ScoredLogits:
    """Logits (N, C) with labels (N,), compared by their `Score`; logits that are not finite come last.

    The log-likelihood takes several passes over the logits, and is computed only where accuracies are equal.

    Attributes:
        largest: The largest absolute logit.
        balanced: The balanced accuracy; 0 where a logit is not finite.
    """

    def __init__(self, logits: Tensor | LogitBlocks, labels: Tensor) -> None:
        self._logits, self._labels = logits, labels
        predicted, extremes = zip(*((z.argmax(dim=1), torch.stack(z.aminmax())) for z in _blocks(logits)), strict=True)
        self.largest = float(torch.stack(extremes).abs().max())
        self.balanced = mean_recall(torch.cat(predicted), labels) if math.isfinite(self.largest) else 0.0

    @cached_property
    def log_likelihood(self) -> float:
        return -fit_temperature(self._logits, self._labels)[1] if math.isfinite(self.largest) else -math.inf

    def __gt__(self, other: ScoredLogits) -> bool:
        if self.balanced != other.balanced:
            return self.balanced > other.balanced
        return self.log_likelihood > other.log_likelihood


def choose_on_val(
    candidates: Callable[[Tensor], Iterable[Tensor]], count: int, features: Tensor, labels: Tensor
) -> tuple[int, list[float]]:
    """Return which of K candidates has the highest score, the first of equals, and each one's balanced accuracy.

    Args:
        candidates: Gives each candidate's logits (n, C) for some features (n, D), always in the same order. What
            candidates share is computed once, and again to break a tie.
        count: K.
        features: Val's features (N, D), on any device.
        labels: Val's labels (N,), on the device to compute on.
    """
    blocks = torch.split(features, _IMAGES_AT_ONCE)
    predicted = torch.empty((count, len(labels)), dtype=torch.int64, device=labels.device)
    finite = torch.ones(count, dtype=torch.bool, device=labels.device)
    for block, block_predicted in zip(blocks, torch.split(predicted, _IMAGES_AT_ONCE, dim=1), strict=True):
        for index, logits in enumerate(candidates(block.to(labels.device))):
            block_predicted[index] = logits.argmax(dim=1)
            finite[index] &= all_finite(logits)
    balanced = [
        mean_recall(row, labels) if is_finite else 0.0
        for row, is_finite in zip(predicted, finite.tolist(), strict=True)
    ]
    tied = [index for index, accuracy in enumerate(balanced) if accuracy == max(balanced)]

    def log_likelihood(index: int) -> float:
        def compute() -> Iterator[Tensor]:
            for block in blocks:
                yield next(itertools.islice(candidates(block.to(labels.device)), index, None))

        return ScoredLogits(LogitBlocks(compute), labels).log_likelihood

    return tied[0] if len(tied) == 1 else max(tied, key=log_likelihood), balanced


def mean_recall(predicted: Tensor, labels: Tensor) -> float:
    """Return the balanced accuracy, the mean of the present classes' recalls, for predictions and labels (N,)."""
    counts = torch.bincount(labels)
    hits = torch.bincount(labels[predicted == labels], minlength=len(counts))
    return float((hits[counts > 0].double() / counts[counts > 0]).mean())


def all_finite(values: Tensor) -> Tensor:
    """Return whether no value is NaN or infinite, (); the extremes tell in a sixth of the time."""
    return torch.stack(values.aminmax()).isfinite().all()


def fit_temperature(logits: Tensor | LogitBlocks, labels: Tensor, *, smoothing: float = 0.0) -> tuple[float, float]:
    """Return the temperature T at which logits/T fit the labels best, and the mean negative log-likelihood there.

    Temperature scaling after Guo et al. 2017: it changes probabilities, never the class that wins. The negative
    log-likelihood is convex in 1/T: Newton's method between bounds that close in takes a few passes over the logits.

    Args:
        logits: (N, C).
        labels: (N,).
        smoothing: ε; each label counts as 1 − ε of itself and ε / C of every class. Above 0 there is a best T even
            where no image is mistaken.

    Raises:
        UserError: The logits are not finite.
    """
    spread = _spread(logits) or 1.0
    if not math.isfinite(spread):
        raise UserError("the logits on val are not finite: weights or features are too small or too large")
    # Sharpness is spread/T. Where val is told apart without a mistake, or not at all, it ends at a bound.
    low, high = _SHARPNESS
    sharpness = 1.0
    for _ in range(_MOST_STEPS):
        nll, slope, curvature = _likelihood(logits, labels, sharpness / spread, smoothing)
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


def _blocks(logits: Tensor | LogitBlocks) -> Iterator[Tensor]:
    """Yield logits (N, C) in parts of the same size, whether they are there as a whole or not."""
    for block in [logits] if isinstance(logits, torch.Tensor) else logits:
        yield from torch.split(block, _IMAGES_AT_ONCE)


def _spread(logits: Tensor | LogitBlocks) -> float:
    """Return the standard deviation of all logits; it is not finite where one of them is not."""
    moments = []
    for z in _blocks(logits):
        exact = z.double()
        moments.append(torch.stack([torch.ones_like(exact).sum(), exact.sum(), exact.square().sum()]))
    count, total, squares = torch.stack(moments).sum(dim=0).tolist()
    variance = (squares - total * total / count) / max(count - 1, 1)
    return math.sqrt(max(variance, 0.0)) if math.isfinite(variance) else math.inf


def _likelihood(
    logits: Tensor | LogitBlocks, labels: Tensor, factor: float, smoothing: float = 0.0
) -> tuple[float, float, float]:
    """Return the mean negative log-likelihood under logits times a factor, and its two derivatives by the factor.

    For logits z of an image and p = softmax(factor·z) they are E_p[z] − z_y and Var_p[z]. Under smoothed labels z_y
    is (1 − ε)·z_y + ε·mean(z).
    """
    sums = torch.zeros(3, dtype=torch.float64, device=labels.device)
    for z, y in zip(_blocks(logits), torch.split(labels, _IMAGES_AT_ONCE), strict=True):
        p = (z * factor).softmax(dim=1)
        mean = torch.linalg.vecdot(p, z)
        from_mean = z - mean[:, None]
        variance = torch.linalg.vecdot(p * from_mean, from_mean)
        z_y = z.gather(1, y[:, None])[:, 0]
        if smoothing:
            z_y = torch.lerp(z_y, z.mean(dim=1), smoothing)
        nll = torch.logsumexp(z * factor, dim=1) - factor * z_y
        sums += torch.stack([nll.sum(), (mean - z_y).sum(), variance.sum()]).double()
    nll, slope, curvature = (sums / len(labels)).tolist()
    return nll, slope, curvature
