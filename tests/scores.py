"""Figures that many tests compare, and made-up ones where any will do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ltrec.evaluation.calibration import BINS, Calibration, Certainty, judge
from ltrec.rebalancing.selection import mean_recall

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


def balanced_accuracy(logits: Tensor, labels: Tensor) -> float:
    """The balanced accuracy of the largest logits, for logits (N, C) and labels (N,)."""
    return mean_recall(logits.argmax(dim=1), labels)


def made_up_calibration(labels: NDArray[np.int64], predicted: NDArray[np.int64], classes: int) -> Calibration:
    """Return the calibration of a head that is the surer the later an image comes, for labels and predictions (N,)."""
    confidence = np.linspace(0.4, 0.9, len(labels))
    certainty = Certainty(confidence, np.log(confidence), np.zeros((classes, BINS)))
    return judge(certainty, predicted == labels, labels)
