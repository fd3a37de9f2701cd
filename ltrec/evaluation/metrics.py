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

from ltrec.data.shot_groups import GROUPS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray
    from scipy.sparse import csr_array
    from torch import Tensor

    Integers = NDArray[np.int64]
    Booleans = NDArray[np.bool_]
    Floats = NDArray[np.float64]
    Names = NDArray[np.str_]
    Counts = NDArray[np.int32]
    Intervals = dict[str, list[float] | None]

Figure = Literal["many", "medium", "few", "all", "top5", "balanced", "macro_f1"]
FIGURES: tuple[Figure, ...] = get_args(Figure)

TOP = 5
_CELLS_AT_ONCE = 1_000_000


@dataclass(frozen=True)
class Predictions:
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


def predictions(logits: Tensor, labels: Tensor) -> Predictions:
    """Read predictions off logits (N, C), given the labels (N,).

    Among equal logits the lower class comes first, in the prediction and in the top five alike. All are finite.
    """
    import torch

    labels = labels[:, None]
    own = logits.gather(1, labels)
    before = torch.arange(logits.shape[1], device=logits.device) < labels
    ahead = (logits > own).sum(dim=1) + ((logits == own) & before).sum(dim=1)
    return Predictions(logits.argmax(dim=1).cpu().numpy(), (ahead < TOP).cpu().numpy())


def per_class_accuracy(labels: Integers, predicted: Integers, classes: int) -> Floats:
    """Share of each class's test images that were recognised, (C,); nan for a class without test images."""
    tested = np.bincount(labels, minlength=classes)
    hits = np.bincount(labels[predicted == labels], minlength=classes)
    accuracy = np.full(classes, np.nan)
    np.divide(hits, tested, out=accuracy, where=tested > 0)
    return accuracy


def confusion(labels: Integers, predicted: Integers, classes: int) -> csr_array:
    """How many test images of class i were taken for class j, (C, C); sparse, since N entries at most are not 0."""
    from scipy.sparse import coo_array

    pairs, counts = np.unique(labels * classes + predicted, return_counts=True)
    return coo_array((counts, (pairs // classes, pairs % classes)), shape=(classes, classes)).tocsr()


def score(labels: Integers, given: Predictions, groups: Names) -> dict[str, float | None]:
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
    once = np.ones((len(labels), 1), dtype=np.int32)
    figures = _figures(once, labels[order], _sorted(given, order), groups)
    return {name: None if values is None else float(values[0]) for name, values in figures.items()}


def bootstrap(
    labels: Integers, variants: Mapping[str, Predictions], groups: Names, *, resamples: int, seed: int
) -> dict[str, Intervals]:
    """95 % percentile intervals of every figure of `score` (Efron 1979), None where there is no figure.

    Stratified: each resample draws, within every class, as many test images as the class has, with
    replacement. The test split is balanced by design, and so is every resample; a rare class never drops
    out. The intervals answer "what if other test images had been photographed", not "what if training had
    begun from another seed". A class whose images are all right, or all wrong, adds no width.
    All variants are judged on the same resamples.

    Args:
        labels: True class of each test image, (N,).
        variants: What each head said to the same images.
        groups: Shot group of each class, (C,).
        resamples: B.
        seed: Of the draws.
    """
    order = np.argsort(labels, kind="stable")
    ordered, answered = labels[order], {name: _sorted(given, order) for name, given in variants.items()}
    parts: dict[str, list[dict[str, Floats | None]]] = {name: [] for name in variants}
    for times in _resamples(ordered, resamples, seed):
        for name, given in answered.items():
            parts[name].append(_figures(times, ordered, given, groups))
    return {name: _intervals(of_variant) for name, of_variant in parts.items()}


def _intervals(parts: Sequence[dict[str, Floats | None]]) -> Intervals:
    intervals: Intervals = dict.fromkeys(FIGURES)
    for name in FIGURES if parts else ():
        known = [values for part in parts if (values := part[name]) is not None]
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


def _sorted(given: Predictions, order: Integers) -> Predictions:
    return Predictions(given.predicted[order], given.in_top5[order])


def _resamples(ordered: Integers, resamples: int, seed: int) -> Iterator[Counts]:
    """How often each image is drawn, (N, b), for some of the B resamples at a time; images are sorted by class."""
    count = len(ordered)
    _, first, size = np.unique(ordered, return_index=True, return_counts=True)
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


def _figures(times: Counts, ordered: Integers, given: Predictions, groups: Names) -> dict[str, Floats | None]:
    """Every figure for each of b samples that hold an image so many `times`, (N, b); images are sorted by class.

    A sample holds as many images of each class as there are in all.
    """
    from scipy.sparse import csr_array

    classes = len(groups)
    tested = np.bincount(ordered, minlength=classes)
    present = np.flatnonzero(tested)

    def of_class(label: Integers, counted: Booleans) -> Integers:
        """Images counted whose label is each class that is present, (b, P)."""
        which = np.flatnonzero(counted)
        member = csr_array((np.ones(len(which), np.int32), (label[which], which)), shape=(classes, len(label)))
        counts: Integers = np.asarray(member @ times)
        return np.ascontiguousarray(counts[present].T)

    hits = of_class(ordered, given.predicted == ordered)
    named = of_class(given.predicted, np.ones_like(given.in_top5))
    accuracy = hits / tested[present]
    f1 = 2 * hits / (tested[present] + named)

    figures: dict[str, Floats | None] = {}
    for group in GROUPS:
        member = groups[present] == group
        figures[group] = accuracy[:, member].mean(axis=1) if member.any() else None
    figures["all"] = hits.sum(axis=1) / len(ordered)
    figures["top5"] = times[given.in_top5].sum(axis=0) / len(ordered) if classes > TOP else None
    figures["balanced"] = accuracy.mean(axis=1)
    figures["macro_f1"] = f1.mean(axis=1)
    return figures
