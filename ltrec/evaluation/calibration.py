"""Whether a head's probabilities can be believed, and how far its errors are among what it is least sure of.

N images, C classes, B bins. Each image has a weight and the weights sum to 1. Those of `class_balanced` let every class
count the same, as balanced accuracy does: on an uneven test, unweighted figures would judge the frequent classes alone.
Where test has as many images of each class, they are the usual figures, each image counting 1/N.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Integers = NDArray[np.int64]
    Booleans = NDArray[np.bool_]
    Floats = NDArray[np.float64]

BINS = 15
"""Equal-width bins ((b − 1)/B, b/B] of a probability, as in Guo et al. 2017."""


@dataclass(frozen=True)
class Certainty:
    """How sure a head is of N images, read off its logits block by block: no (N, C) array is held."""

    confidence: Floats
    """The largest probability, (N,)."""
    log_likelihood: Floats
    """The log-probability of the true class, (N,)."""
    gaps: Floats
    """By class and by bin of its probability p_j: the weighted sum of p_j − [y = j] over the images, (C, B)."""


class ReliabilityBin(NamedTuple):
    """The images whose largest probability lies in one bin."""

    low: float
    high: float
    share: float
    """Their weight."""
    confidence: float
    """Their mean largest probability."""
    accuracy: float
    """How often they are right."""


class RiskCoverage(NamedTuple):
    """The selective risk of accepting the surest images only, at each confidence that a head has."""

    coverage: Floats
    """The share of images accepted, ascending to 1, (K,)."""
    risk: Floats
    """The share of errors among them, (K,)."""
    aurc: float
    """The area under the curve: the risk at each image's own confidence, averaged over the images."""


@dataclass(frozen=True)
class Calibration:
    """How well the probabilities of one head are calibrated on test."""

    figures: dict[str, float]
    """`nll`, the mean negative log-likelihood in nats, and the fractions `ece`, `classwise_ece` and `aurc`."""
    reliability: list[ReliabilityBin]
    risk_coverage: RiskCoverage


def judge(certainty: Certainty, right: Booleans, labels: Integers) -> Calibration:
    """Return the calibration of a head, every class counting the same.

    Args:
        certainty: What was read off its logits.
        right: Whether each prediction is right, (N,).
        labels: True class of each image, (N,).
    """
    weights = class_balanced(labels)
    bins = reliability(certainty.confidence, right, weights)
    curve = risk_coverage(certainty.confidence, right, weights)
    return Calibration(
        {
            "nll": float(-(weights @ certainty.log_likelihood)),
            "ece": expected_calibration_error(bins),
            "classwise_ece": classwise_calibration_error(certainty.gaps[np.unique(labels)]),
            "aurc": curve.aurc,
        },
        bins,
        curve,
    )


def class_balanced(labels: Integers) -> Floats:
    """Return each image's weight 1 / (P · n_y), where P classes have images and its own has n_y, (N,)."""
    counts = np.bincount(labels)
    return 1 / (np.count_nonzero(counts) * counts[labels])


def bin_of(probability: Floats) -> Integers:
    """Return the bin 0 … B − 1 of each probability; 0 itself lies in the first."""
    return np.clip(np.ceil(probability * BINS).astype(np.int64) - 1, 0, BINS - 1)


def reliability(confidence: Floats, right: Booleans, weights: Floats) -> list[ReliabilityBin]:
    """Return the bins that hold images, for largest probabilities, right predictions and weights (N,)."""
    place = bin_of(confidence)
    share, sure, hits = (np.bincount(place, weights * of, BINS) for of in (1.0, confidence, right))
    return [
        ReliabilityBin(b / BINS, (b + 1) / BINS, float(share[b]), float(sure[b] / share[b]), float(hits[b] / share[b]))
        for b in np.flatnonzero(share).tolist()
    ]


def expected_calibration_error(bins: list[ReliabilityBin]) -> float:
    """Return the ECE: Σ_b share_b · |accuracy_b − confidence_b| (Naeini et al. 2015; Guo et al. 2017, eq. 3)."""
    return sum(of.share * abs(of.accuracy - of.confidence) for of in bins)


def classwise_calibration_error(gaps: Floats) -> float:
    """Return the class-wise ECE, the mean over classes of the ECE of "is it class j?" (Kull et al. 2019, section 2).

    Of many classes most are told apart from an image without doubt, which makes the figure small: about 1/C.

    Args:
        gaps: As `Certainty` has them, of the classes that have images, (P, B).
    """
    return float(np.abs(gaps).sum(axis=1).mean())


def risk_coverage(confidence: Floats, right: Booleans, weights: Floats) -> RiskCoverage:
    """Return the risk–coverage curve and its area (Geifman & El-Yaniv 2017), for arrays (N,).

    Images of one confidence are accepted together: their order decides nothing.
    """
    order = np.argsort(-confidence, kind="stable")
    falling, weights = confidence[order], weights[order]
    coverage, errors = np.cumsum(weights), np.cumsum(weights * ~right[order])
    last = np.flatnonzero(np.append(falling[1:] != falling[:-1], True))
    risk = errors[last] / coverage[last]
    accepted = np.diff(coverage[last], prepend=0.0)
    return RiskCoverage(coverage[last] / coverage[-1], risk, float(accepted @ risk / coverage[-1]))
