"""How sure one can be of the figures: bootstrap intervals, and exact tests of each variant against joint.

N test images, C classes, B bootstrap resamples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ltrec.evaluation.metrics import FIGURES, reordered, score_samples

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ltrec.evaluation.metrics import Booleans, Counts, Floats, Integers, Names
    from ltrec.evaluation.predictions import Predictions

    Intervals = dict[str, list[float] | None]

_CELLS_AT_ONCE = 1_000_000


def bootstrap(
    labels: Integers, variants: Mapping[str, Predictions], groups: Names, *, resamples: int, seed: int
) -> dict[str, Intervals]:
    """Return each variant's 95 % percentile intervals of every figure of `score` (Efron 1979), None without a figure.

    Stratified: each resample draws, within every class, as many test images as the class has, with
    replacement. The test split is balanced by design, and so is every resample; a rare class never drops
    out. The intervals answer "what if other test images had been photographed", not "what if training had
    begun from another seed". A class whose images are all right, or all wrong, adds no width.
    All variants are judged on the same resamples.

    Args:
        labels: True class of each test image, (N,).
        variants: What each head predicts of the same images.
        groups: Shot group of each class, (C,).
        resamples: B.
        seed: Seed of the draws.
    """
    order = np.argsort(labels, kind="stable")
    ordered = {name: reordered(predictions, order) for name, predictions in variants.items()}
    parts: dict[str, list[dict[str, Floats | None]]] = {name: [] for name in variants}
    for times in stratified_resamples(labels[order], resamples, seed):
        for name, predictions in ordered.items():
            parts[name].append(score_samples(times, labels[order], predictions, groups))
    return {name: _intervals(of_variant) for name, of_variant in parts.items()}


def _intervals(parts: Sequence[dict[str, Floats | None]]) -> Intervals:
    intervals: Intervals = dict.fromkeys(FIGURES)
    for name in FIGURES:
        if samples := [values for part in parts if (values := part[name]) is not None]:
            low, high = np.percentile(np.concatenate(samples), [2.5, 97.5])
            intervals[name] = [float(low), float(high)]
    return intervals


def stratified_resamples(labels: Integers, resamples: int, seed: int) -> Iterator[Counts]:
    """Yield how often each image is drawn, (N, b), for some of the B resamples at a time; labels ascend."""
    count = len(labels)
    _, first, size = np.unique(labels, return_index=True, return_counts=True)
    start, width = np.repeat(first, size), np.repeat(size, size)
    random = np.random.default_rng([seed, 0xB007])
    step = max(1, _CELLS_AT_ONCE // max(count, 1))
    for done in range(0, resamples, step):
        rows = min(step, resamples - done)
        uniform = random.random((rows, count), dtype=np.float32)
        drawn = np.minimum(start + (uniform * width).astype(np.int64), start + width - 1)
        drawn += count * np.arange(rows)[:, None]
        times = np.bincount(drawn.ravel(), minlength=rows * count).astype(np.int32)
        yield np.ascontiguousarray(times.reshape(rows, count).T)


@dataclass(frozen=True)
class Comparison:
    """A variant against joint on the same images."""

    better: int
    """Images that the variant alone got right."""
    worse: int
    """Images that joint alone got right."""
    p_value: float
    """The p value of McNemar's test."""
    p_holm: float
    """The same, adjusted for all variants that were compared."""


def compare(right: Mapping[str, Booleans], reference: str | None) -> dict[str, Comparison]:
    """Return each other variant's comparison with the reference; none without a reference.

    Args:
        right: Whether each variant is right on each image, (N,).
        reference: The variant that is joint.
    """
    if reference is None:
        return {}
    tests = {name: mcnemar(hits, right[reference]) for name, hits in right.items() if name != reference}
    adjusted = holm([p_value for *_, p_value in tests.values()])
    return {name: Comparison(*test, p_holm) for (name, test), p_holm in zip(tests.items(), adjusted, strict=True)}


def mcnemar(variant_right: Booleans, joint_right: Booleans) -> tuple[int, int, float]:
    """Return how many images either of two heads alone got right, and the p value of McNemar's exact two-sided test.

    If both are equally good, either is the right one with probability ½ on each of those images (McNemar
    1947; the exact binomial form). Without such images p is 1.
    """
    from scipy.stats import binomtest

    better = int(np.count_nonzero(variant_right & ~joint_right))
    worse = int(np.count_nonzero(joint_right & ~variant_right))
    discordant = better + worse
    return better, worse, float(binomtest(better, discordant, 0.5).pvalue) if discordant else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values adjusted for testing several variants at once (Holm 1979), in the order given."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return [float(value) for value in adjusted]
