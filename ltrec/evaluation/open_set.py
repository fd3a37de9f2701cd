"""How well a head tells images of unknown classes from images of its own: scores, figures, the threshold.

N images, of which K are known, of one of the head's C classes, and U unknown. A score is high where a head is sure
of its prediction. A threshold θ accepts the images whose score is θ or more; the others are rejected as unknown.
All is computed from what `head(features)` gives: scores already divided by the head's own temperature, which is
fitted on val. That temperature moves every score and threshold here, though it never changes a prediction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from ltrec.artifacts import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    Integers = NDArray[np.int64]
    Booleans = NDArray[np.bool_]
    Floats = NDArray[np.float64]

Score = Literal["msp", "energy"]
SCORES: tuple[Score, ...] = get_args(Score)

PUBLISHED_THRESHOLD = 0.1
"""The threshold that papers take for the largest softmax probability (Liu et al. 2019; Kang et al. 2020)."""
_KNOWN_ACCEPTED = 95  # per cent, of FPR95


@dataclass(frozen=True)
class ScoredImages:
    """How sure a head is of N images, and whether it should be."""

    known: Booleans
    """Whether the image is of one of the head's classes, (N,)."""
    right: Booleans
    """Whether the image is known and the class predicted is its own, (N,)."""
    scores: dict[Score, Floats]
    """How sure the head is by each score, (N,)."""


def score_images(blocks: Iterable[NDArray[np.float32]], labels: Integers) -> ScoredImages:
    """Return the scores of N images, whose logits come in blocks (n, C), with labels (N,), -1 for an unknown image."""
    predicted, parts = [], []
    for logits in blocks:
        predicted.append(logits.argmax(axis=1))
        parts.append(confidence(logits))
    return ScoredImages(
        known=labels != UNKNOWN,
        right=np.concatenate(predicted) == labels,
        scores={score: np.concatenate([part[score] for part in parts]) for score in SCORES},
    )


def confidence(logits: NDArray[np.float32]) -> dict[Score, Floats]:
    """Return each score of logits (N, C), (N,).

    msp: the largest softmax probability (Hendrycks & Gimpel 2017).
    energy: log Σ_j exp(logit_j), the negative free energy at T = 1 (Liu et al. 2020, eq. 4).
    """
    largest = logits.max(axis=1).astype(np.float64)
    total = np.exp(logits - largest[:, None]).sum(axis=1)
    return {"msp": 1 / total, "energy": largest + np.log(total)}


def evaluate_open_set(test: ScoredImages, val: ScoredImages) -> dict[str, Any]:
    """Return each score's auroc, fpr95, and F-measure at the threshold that was the best on val, as JSON.

    The threshold and its F-measure are None where val has no unknown image to choose on. The F-measure at the
    published threshold stands beside them.
    """
    figures: dict[str, Any] = {}
    for name, score in test.scores.items():
        threshold = None if val.known.all() else best_threshold(val.scores[name], val.known, val.right)
        figures[name] = {
            "auroc": auroc(score, test.known),
            "fpr95": fpr95(score, test.known),
            "f_measure": None if threshold is None else f_measure(score, test.known, test.right, threshold),
            "threshold": threshold,
        }
    at_published = f_measure(test.scores["msp"], test.known, test.right, PUBLISHED_THRESHOLD)
    return figures | {f"f_measure_at_{PUBLISHED_THRESHOLD:g}": at_published}


def auroc(score: Floats, known: Booleans) -> float:
    """Return the probability that a known image scores above an unknown one; a tie counts as half."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(known, score))


def fpr95(score: Floats, known: Booleans) -> float:
    """Return the share of unknown images accepted by the highest threshold that accepts 95 % or more of the known ones.

    Images that tie with the threshold are accepted, known and unknown ones alike.
    """
    falling = np.sort(score[known])[::-1]
    needed = -(-_KNOWN_ACCEPTED * len(falling) // 100)  # rounded up, in whole numbers
    return float((score[~known] >= falling[needed - 1]).mean())


def f_measure(score: Floats, known: Booleans, right: Booleans, threshold: float) -> float:
    """Return the open-set F-measure (Liu et al. 2019), the harmonic mean of precision and recall.

    TP: known images accepted with their own label. Precision is TP / K: a known image that is rejected counts as
    one that is given a wrong label, as in the published code. Recall is TP / (TP + unknown images accepted).
    Their harmonic mean is 2·TP / (K + TP + unknown images accepted).
    """
    accepted = score >= threshold
    hits = np.count_nonzero(accepted & right)
    return float(2 * hits / (np.count_nonzero(known) + hits + np.count_nonzero(accepted & ~known)))


def best_threshold(score: Floats, known: Booleans, right: Booleans) -> float:
    """Return the score with the largest F-measure as a threshold; of equals the lowest, which accepts most."""
    order = np.argsort(-score, kind="stable")
    falling = score[order]
    hits, unknown_accepted = np.cumsum(right[order]), np.cumsum(~known[order])
    f_measures = 2 * hits / (np.count_nonzero(known) + hits + unknown_accepted)
    # A threshold accepts all images of its score: only the last of equal scores says what it gives.
    last = np.flatnonzero(np.append(falling[1:] != falling[:-1], True))
    best = last[f_measures[last] == f_measures[last].max()]
    return float(falling[best[-1]])
