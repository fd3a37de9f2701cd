"""How sure one can be of the figures: bootstrap intervals, and exact tests of each variant against joint.

Over the seeds of several trainings: t-intervals, and paired t-tests. N test images, C classes, B bootstrap resamples,
S seeds.
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
_ALIKE = 1e-12  # what rounding alone makes of equal accuracies, or of equal differences between them


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


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds, and how sure it is."""

    mean: float
    half_width: float
    """Half the width of the 95 % interval around the mean; 0 where all seeds gave the same."""
    seeds: int


@dataclass(frozen=True)
class PairedEstimate(Estimate):
    """A mean difference over seeds."""

    p_value: float | None
    """The p value of the paired t-test; None where all differences are equal and not 0, so that t has no spread."""


def t_interval(values: Sequence[float]) -> Estimate:
    """Return the mean over S ≥ 2 seeds and its 95 % interval, t(0.975, S − 1) · s / √S (Student 1908).

    It answers "what if training had begun from another seed", with the splits drawn from that seed, too, where they
    are drawn at all; not "what if other test images had been photographed".
    """
    from scipy.stats import t

    assert len(values) > 1, "one seed has no spread"
    spread = float(np.std(values, ddof=1))
    if spread <= _ALIKE:
        spread = 0.0
    return Estimate(
        float(np.mean(values)), float(t.ppf(0.975, len(values) - 1)) * spread / len(values) ** 0.5, len(values)
    )


def paired_t(values: Sequence[float], reference: Sequence[float]) -> PairedEstimate:
    """Return the mean difference between two variants of the same S ≥ 2 seeds, with its interval and two-sided p value.

    Paired, since a seed's split and representation are the same for both: what they share falls out.

    Args:
        values: A figure of the variant, for each seed.
        reference: The same of the variant that it is compared with, in the same order.
    """
    from scipy.stats import t

    difference = t_interval([value - other for value, other in zip(values, reference, strict=True)])
    freedom = difference.seeds - 1
    p_value: float | None = None
    if difference.half_width:
        standard_error = difference.half_width / float(t.ppf(0.975, freedom))
        p_value = float(2 * t.sf(abs(difference.mean) / standard_error, freedom))
    elif abs(difference.mean) <= _ALIKE:
        p_value = 1.0
    return PairedEstimate(difference.mean, difference.half_width, difference.seeds, p_value)
