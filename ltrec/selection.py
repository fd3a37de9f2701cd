"""How anything is chosen on the validation split: one score, one rule for ties."""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from scipy.optimize import minimize_scalar

from ltrec.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

Item = TypeVar("Item")


class Score(NamedTuple):
    """Ordered: balanced accuracy first, then the likelihood of the labels under the best temperature."""

    balanced: float
    log_likelihood: float


class Candidate:
    """Logits (N, C) against labels (N,), ordered as `Score`; those that are not finite are right nowhere and come last.

    The likelihood takes dozens of passes over the logits, so that it is fitted only where accuracies are equal.
    """

    def __init__(self, logits: Tensor, labels: Tensor) -> None:
        self._logits, self._labels = logits, labels
        self._finite = bool(torch.isfinite(logits).all())
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
    """The mean over the classes present of their accuracies."""
    counts = torch.bincount(labels)
    hits = torch.bincount(labels[logits.argmax(dim=1) == labels], minlength=len(counts))
    return float((hits[counts > 0].double() / counts[counts > 0]).mean())


def calibrated(logits: Tensor, labels: Tensor) -> tuple[float, float]:
    """The temperature that fits the labels best, and the mean negative log-likelihood under it.

    Temperature scaling after Guo et al. 2017; it changes probabilities, never the class that wins.

    Raises:
        UserError: the logits are not finite.
    """
    if not torch.isfinite(logits).all():
        raise UserError("the logits on val are not finite: weights or features are too small or too large")
    logits = logits.double()
    spread = float(logits.std()) or 1.0

    def nll(log_temperature: float) -> float:
        return float(F.cross_entropy(logits / (spread * torch.tensor(log_temperature).exp()), labels))

    found = minimize_scalar(nll, bounds=(-6.0, 4.0), method="bounded", options={"xatol": 1e-3})
    return spread * float(torch.tensor(found.x).exp()), float(found.fun)
