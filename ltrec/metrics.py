"""How good a head is on a long tail, and how sure one can be of it.

N test images, C classes, B bootstrap resamples. Every figure is a fraction between 0 and 1.
The definitions are those of Kang et al. 2020, section 5.1, after Liu et al. 2019 (Places-LT, ImageNet-LT):
classes belong to shot groups by their number of *training* images, and a group's figure is the mean of the
accuracies of its classes. Classes without test images stay out of every mean; a group without any other
class has no figure (None), which is not the same as 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from pydantic import model_validator

from ltrec.settings import PositiveInt, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Self

    from numpy.typing import NDArray

    Integers = NDArray[np.int64]
    Booleans = NDArray[np.bool_]
    Floats = NDArray[np.float64]
    Names = NDArray[np.str_]

Group = Literal["many", "medium", "few"]
GROUPS: tuple[Group, ...] = get_args(Group)
Figure = Literal["many", "medium", "few", "all", "top5", "balanced", "macro_f1"]
FIGURES: tuple[Figure, ...] = get_args(Figure)

TOP = 5
_CELLS_AT_ONCE = 4_000_000


class ShotSettings(Settings):
    """Where many-shot ends and few-shot begins, in training images of a class."""

    many_above: PositiveInt = 100
    """A class with more training images than this is many-shot."""
    few_below: PositiveInt = 20
    """A class with fewer training images than this is few-shot; what lies between is medium-shot."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.few_below > self.many_above:
            raise ValueError(f"few_below ({self.few_below}) must not exceed many_above ({self.many_above})")
        return self


@dataclass(frozen=True)
class Answers:
    """What a head said to each test image."""

    predicted: Integers
    """Predicted class, (N,)."""
    in_top5: Booleans
    """Whether the true class is among the five largest logits, (N,)."""


@dataclass(frozen=True)
class Pairing:
    """A variant against joint on the same images."""

    better: int
    """Images that the variant alone got right."""
    worse: int
    """Images that joint alone got right."""
    p_value: float


def shot_groups(counts: Integers, many_above: int, few_below: int) -> Names:
    """The shot group of each class by its number of training images, (C,) → (C,)."""
    return np.select([counts > many_above, counts < few_below], ["many", "few"], "medium")


def answers(logits: NDArray[np.float32], labels: Integers) -> Answers:
    """Read predictions off logits (N, C).

    Among equal logits the lower class comes first, in the prediction and in the top five alike.

    Raises:
        ValueError: a logit is not a finite number.
    """
    if not np.isfinite(logits).all():
        raise ValueError("a logit is not a finite number")
    own = np.take_along_axis(logits, labels[:, None], axis=1)
    ahead = (logits > own) | ((logits == own) & (np.arange(logits.shape[1]) < labels[:, None]))
    return Answers(logits.argmax(axis=1).astype(np.int64), ahead.sum(axis=1) < TOP)


def per_class_accuracy(labels: Integers, predicted: Integers, classes: int) -> Floats:
    """Share of each class's test images that were recognised, (C,); nan for a class without test images."""
    tested = np.bincount(labels, minlength=classes)
    hits = np.bincount(labels[predicted == labels], minlength=classes)
    accuracy = np.full(classes, np.nan)
    np.divide(hits, tested, out=accuracy, where=tested > 0)
    return accuracy


def confusion(labels: Integers, predicted: Integers, classes: int) -> Integers:
    """How many test images of class i were taken for class j, (C, C)."""
    pairs = np.bincount(labels * classes + predicted, minlength=classes * classes)
    return pairs.reshape(classes, classes).astype(np.int64)


def score(labels: Integers, given: Answers, groups: Names) -> dict[str, float | None]:
    """All figures of one head.

    `many`, `medium`, `few`: means over the classes of a group; `all`: top-1 over all images; `top5`: the true
    class is among the five largest logits, None for C ≤ 5, where nothing else can happen; `balanced`: mean of
    all classes' accuracies; `macro_f1`: mean over classes of 2·TP / (2·TP + FP + FN).

    Args:
        labels: True class of each test image, (N,).
        given: What the head said to the same images.
        groups: Shot group of each class, (C,).
    """
    order = np.argsort(labels, kind="stable")
    figures = _figures(np.arange(len(labels))[None, :], labels[order], _sorted(given, order), groups)
    return {name: None if values is None else float(values[0]) for name, values in figures.items()}


def bootstrap(
    labels: Integers, given: Answers, groups: Names, *, resamples: int, seed: int
) -> dict[str, list[float] | None]:
    """95 % percentile intervals of every figure of `score` (Efron 1979), None where there is no figure.

    Stratified: each resample draws, within every class, as many test images as the class has, with
    replacement. The test split is balanced by design, and so is every resample; a rare class never drops
    out. The intervals answer "what if other test images had been photographed", not "what if training had
    begun from another seed". A class whose images are all right, or all wrong, adds no width.
    The same seed draws the same images for every head, so that heads are compared on equal resamples.
    """
    order = np.argsort(labels, kind="stable")
    ordered, answered = labels[order], _sorted(given, order)
    parts = [_figures(draws, ordered, answered, groups) for draws in _resamples(ordered, resamples, seed)]
    intervals: dict[str, list[float] | None] = dict.fromkeys(FIGURES)
    for name in FIGURES if parts else ():
        values = [part[name] for part in parts]
        known = [value for value in values if value is not None]
        if known:
            low, high = np.percentile(np.concatenate(known), [2.5, 97.5])
            intervals[name] = [float(low), float(high)]
    return intervals


def mcnemar(variant_right: Booleans, joint_right: Booleans) -> Pairing:
    """Exact two-sided McNemar test over the images on which exactly one of two heads is right, (N,) each.

    If both are equally good, either is the right one with probability ½ on each of those images (McNemar
    1947; the exact binomial form). Without such images p is 1.
    """
    from scipy.stats import binomtest

    better = int(np.count_nonzero(variant_right & ~joint_right))
    worse = int(np.count_nonzero(joint_right & ~variant_right))
    if better + worse == 0:
        return Pairing(better, worse, 1.0)
    return Pairing(better, worse, float(binomtest(better, better + worse, 0.5).pvalue))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p values for testing several variants at once (Holm 1979), in the order given."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return [float(value) for value in adjusted]


def _sorted(given: Answers, order: Integers) -> Answers:
    return Answers(given.predicted[order], given.in_top5[order])


def _resamples(ordered: Integers, resamples: int, seed: int) -> Iterator[Integers]:
    """Image indices (b, N) for some of the B resamples at a time; images are sorted by class."""
    _, first, size = np.unique(ordered, return_index=True, return_counts=True)
    start, width = np.repeat(first, size), np.repeat(size, size)
    random = np.random.default_rng([seed, 0xB007])
    step = max(1, _CELLS_AT_ONCE // max(len(ordered), 1))
    for done in range(0, resamples, step):
        uniform = random.random((min(step, resamples - done), len(ordered)), dtype=np.float32)
        yield np.minimum(start + (uniform * width).astype(np.int64), start + width - 1)


def _figures(draws: Integers, ordered: Integers, given: Answers, groups: Names) -> dict[str, Floats | None]:
    """Every figure for each row of drawn images (b, N), whose labels are `ordered` (N,) in each row."""
    classes = len(groups)
    tested = np.bincount(ordered, minlength=classes)
    present = np.flatnonzero(tested)
    first = (np.cumsum(tested) - tested)[present]

    predicted = given.predicted[draws]
    hits = np.add.reduceat(predicted == ordered, first, axis=1, dtype=np.int64)
    rows = np.arange(len(draws))[:, None] * classes
    named = np.bincount((predicted + rows).ravel(), minlength=len(draws) * classes).reshape(len(draws), classes)
    accuracy = hits / tested[present]
    f1 = 2 * hits / (tested[present] + named[:, present])

    figures: dict[str, Floats | None] = {}
    for group in GROUPS:
        member = groups[present] == group
        figures[group] = accuracy[:, member].mean(axis=1) if member.any() else None
    figures["all"] = hits.sum(axis=1) / len(ordered)
    figures["top5"] = given.in_top5[draws].mean(axis=1) if classes > TOP else None
    figures["balanced"] = accuracy.mean(axis=1)
    figures["macro_f1"] = f1.mean(axis=1)
    return figures
