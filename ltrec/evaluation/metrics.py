"""How good a head is on a long tail.

N test images, C classes. Every figure is a fraction between 0 and 1. The definitions are those of Kang et al. 2020,
section 5.1, after Liu et al. 2019 (Places-LT, ImageNet-LT): classes belong to shot groups by their number of *training*
images, and a group's figure is the mean of the accuracies of its classes. Classes without test images stay out of every
mean; a group without any other class has no figure (None), which is not the same as 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from ltrec.data.shot_groups import GROUPS
from ltrec.evaluation.predictions import TOP, Predictions

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_array

    Integers = NDArray[np.int64]
    Booleans = NDArray[np.bool_]
    Floats = NDArray[np.float64]
    Names = NDArray[np.str_]
    Counts = NDArray[np.int32]

Figure = Literal["many", "medium", "few", "all", "top5", "balanced", "macro_f1"]
FIGURES: tuple[Figure, ...] = get_args(Figure)


def per_class_accuracy(labels: Integers, predicted: Integers, classes: int) -> Floats:
    """Return the share of each class's test images that were recognised, (C,); nan for a class without test images."""
    tested = np.bincount(labels, minlength=classes)
    hits = np.bincount(labels[predicted == labels], minlength=classes)
    accuracy = np.full(classes, np.nan)
    np.divide(hits, tested, out=accuracy, where=tested > 0)
    return accuracy


def confusion(labels: Integers, predicted: Integers, classes: int) -> csr_array:
    """Return how many test images of class i were taken for class j, (C, C); sparse, since at most N are not 0."""
    from scipy.sparse import coo_array

    pairs, counts = np.unique(labels * classes + predicted, return_counts=True)
    return coo_array((counts, (pairs // classes, pairs % classes)), shape=(classes, classes)).tocsr()


def score(labels: Integers, predictions: Predictions, groups: Names) -> dict[str, float | None]:
    """Return all figures of one head.

    `many`, `medium`, `few`: means over the classes of a group; `all`: top-1 over all images; `top5`: the true
    class is among the five largest logits, None for C ≤ 5, where nothing else can happen; `balanced`: mean of
    all classes' accuracies; `macro_f1`: mean over classes of 2·TP / (2·TP + FP + FN).

    Args:
        labels: True class of each test image, (N,).
        predictions: What the head predicts of the same images.
        groups: Shot group of each class, (C,).
    """
    order = np.argsort(labels, kind="stable")
    once = np.ones((len(labels), 1), dtype=np.int32)
    figures = score_samples(once, labels[order], reordered(predictions, order), groups)
    return {name: None if values is None else float(values[0]) for name, values in figures.items()}


def reordered(predictions: Predictions, order: Integers) -> Predictions:
    """Return the predictions on the images that `order` (N,) names, in that order."""
    return Predictions(predictions.predicted[order], predictions.in_top5[order])


def score_samples(times: Counts, labels: Integers, predictions: Predictions, groups: Names) -> dict[str, Floats | None]:
    """Return every figure for each of b samples, (b,); None where there is no figure.

    Args:
        times: How often each sample holds each image, (N, b). Of each class it holds as many images as there are.
        labels: True class of each test image, ascending, (N,).
        predictions: What the head predicts of the same images.
        groups: Shot group of each class, (C,).
    """
    from scipy.sparse import csr_array

    classes = len(groups)
    tested = np.bincount(labels, minlength=classes)
    present = np.flatnonzero(tested)

    def count_by_class(label: Integers, counted: Booleans) -> Integers:
        """Return how many of the images counted have each class that is present as their `label`, (b, P)."""
        images = np.flatnonzero(counted)
        member = csr_array((np.ones(len(images), np.int32), (label[images], images)), shape=(classes, len(label)))
        counts: Integers = np.asarray(member @ times)
        return np.ascontiguousarray(counts[present].T)

    hits = count_by_class(labels, predictions.predicted == labels)
    predicted = count_by_class(predictions.predicted, np.ones_like(predictions.in_top5))
    accuracy = hits / tested[present]

    figures: dict[str, Floats | None] = {}
    for group in GROUPS:
        member = groups[present] == group
        figures[group] = accuracy[:, member].mean(axis=1) if member.any() else None
    figures["all"] = hits.sum(axis=1) / len(labels)
    figures["top5"] = times[predictions.in_top5].sum(axis=0) / len(labels) if classes > TOP else None
    figures["balanced"] = accuracy.mean(axis=1)
    figures["macro_f1"] = (2 * hits / (tested[present] + predicted)).mean(axis=1)
    return figures
