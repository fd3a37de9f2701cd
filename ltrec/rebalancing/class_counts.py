"""How many training images each class has, for methods that cannot do without one. N images, C classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ltrec.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


def log_prior(labels: Tensor, classes: int, *, method: str) -> Tensor:
    """Return log π, the logarithms of the classes' shares of the images, float32 (C,).

    Args:
        labels: Of the training images, (N,).
        classes: C.
        method: Who needs an image of each class, for the message.

    Raises:
        UserError: A class has no image.
    """
    counts = class_counts(labels, classes, method=method).double()
    return (counts / counts.sum()).log().float()


def class_counts(labels: Tensor, classes: int, *, method: str) -> Tensor:
    """Return the number of images of each class, int64 (C,), none of which is 0.

    Args:
        labels: Of the training images, (N,).
        classes: C.
        method: Who needs an image of each class, for the message.

    Raises:
        UserError: A class has no image.
    """
    counts = labels.bincount(minlength=classes)
    if not counts.all():
        raise UserError(
            f"class {int(counts.argmin())} (counted from 0) has no training image, and {method} needs one;"
            " allowed: another method, or a training list with an image of each class"
        )
    return counts
