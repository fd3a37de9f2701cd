"""How anything is chosen on the validation split: one score, one rule for ties."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from scipy.optimize import minimize_scalar

from ltrec.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


class Score(NamedTuple):
    """Ordered: balanced accuracy first, then the likelihood of the labels under the best temperature."""

    balanced: float
    log_likelihood: float


def score(logits: Tensor, labels: Tensor) -> Score:
    """Of logits (N, C) against labels (N,); logits that are not finite are right nowhere and come last."""
    if not torch.isfinite(logits).all():
        return Score(0.0, -math.inf)
    return Score(balanced_accuracy(logits, labels), -calibrated(logits, labels)[1])


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
