"""Which variant is the champion, by its accuracy on val, and how likely another one is better.

N val images, V variants, B bootstrap resamples. With few val images a choice among many variants is itself noise. What
is said here speaks of other val images; that training could have begun from another seed is a doubt of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from ltrec.evaluation.calibration import class_balanced
from ltrec.evaluation.statistics import stratified_resamples

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ltrec.evaluation.metrics import Booleans, Floats, Integers

Prefer = Literal["best", "simplest"]

_ROUNDING = 1e-9  # two sums of the same accuracies may differ by as much


@dataclass(frozen=True)
class Choice:
    """The champion, and what speaks for it on val."""

    champion: str
    best: str
    """The variant with the highest score; the champion, unless a simpler one was preferred."""
    best_on_val: dict[str, float] = field(default_factory=dict)
    """Of each variant, the share of resamples of val in which it is the best; empty where there are none."""

    @property
    def doubt(self) -> float | None:
        """Return the chance that the champion is not the best; None where it is not known."""
        return 1 - self.best_on_val[self.champion] if self.best_on_val else None

    def __str__(self) -> str:
        simplest = "" if self.champion == self.best else f", the simplest within one standard error of {self.best}"
        sure = (
            f" (best in {100 * self.best_on_val[self.champion]:.0f} % of resamples of val)" if self.best_on_val else ""
        )
        return f"by balanced accuracy on val{simplest}{sure}"


def choose(
    scores: Mapping[str, tuple[float, float]],
    complexity: Mapping[str, int],
    resampled: Mapping[str, Floats],
    *,
    prefer: Prefer = "best",
) -> Choice:
    """Return the champion among variants, and how sure it is.

    `best` is the variant with the highest score, the first of equals. `simplest` is the least complex of those that lie
    within one standard error of it, the best of these: the one-standard-error rule of Breiman et al. 1984, with the
    error of the paired difference of two variants on the same resamples of val.

    Args:
        scores: By what variants are compared on val: balanced accuracy, then the log-likelihood.
        complexity: How complex each variant is.
        resampled: Each one's balanced accuracy on resamples of val, (B,), as `resampled_accuracy` gives it; may be
            empty with `best`.
        prefer: What to choose.
    """
    best = max(scores, key=scores.__getitem__)
    champion = best
    if prefer == "simplest":
        close = [
            name for name in scores if scores[best][0] - scores[name][0] <= _error(resampled, best, name) + _ROUNDING
        ]
        least = min(complexity[name] for name in close)
        champion = max((name for name in close if complexity[name] == least), key=scores.__getitem__)
    return Choice(champion, best, _chances(resampled))


def resampled_accuracy(
    right: Mapping[str, Booleans], labels: Integers, *, resamples: int, seed: int
) -> dict[str, Floats]:
    """Return each variant's balanced accuracy on B resamples of val, the same ones for all, (B,).

    Stratified: each class keeps its number of images. A class of a single image is the same in every resample, and one
    of few images differs too little: the doubt is a lower bound. Where no class has two images it cannot be told at
    all, and nothing is returned.

    Args:
        right: Whether each variant is right on each val image, (N,).
        labels: True class of each val image, (N,).
        resamples: B.
        seed: Seed of the draws.
    """
    if not resamples or np.bincount(labels).max() < 2:
        return {}
    order = np.argsort(labels, kind="stable")
    weighted = np.stack([class_balanced(labels)[order] * hits[order] for hits in right.values()])  # (V, N)
    samples = [weighted @ times for times in stratified_resamples(labels[order], resamples, seed)]
    return dict(zip(right, np.concatenate(samples, axis=1), strict=True))


def _error(resampled: Mapping[str, Floats], first: str, second: str) -> float:
    """Return the standard error of the difference of two variants' accuracies."""
    return float(np.std(resampled[first] - resampled[second])) if resampled else 0.0


def _chances(resampled: Mapping[str, Floats]) -> dict[str, float]:
    """Return of each variant in which share of the resamples it is the best; equals share a resample."""
    if not resampled:
        return {}
    accuracy = np.stack(list(resampled.values()))
    best = accuracy >= accuracy.max(axis=0) - _ROUNDING
    return dict(zip(resampled, (best / best.sum(axis=0)).mean(axis=1).tolist(), strict=True))
