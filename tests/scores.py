"""Figures that many tests compare."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ltrec.rebalancing.selection import mean_recall

if TYPE_CHECKING:
    from torch import Tensor


def balanced_accuracy(logits: Tensor, labels: Tensor) -> float:
    """The balanced accuracy of the largest logits, for logits (N, C) and labels (N,)."""
    return mean_recall(logits.argmax(dim=1), labels)
