"""What evaluation reads off a head: its predictions, its logits block by block, and the norms of its class weights.

N images, C classes, D features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from ltrec.errors import UserError
from ltrec.models.heads import logits_in_blocks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from torch import Tensor

    from ltrec.models.heads import Head

TOP = 5


@dataclass(frozen=True)
class Predictions:
    """What a head predicts of N images."""

    predicted: NDArray[np.int64]
    """The class with the largest logit, (N,)."""
    in_top5: NDArray[np.bool_]
    """Whether the true class is among the five largest logits, (N,)."""


def predict(head: Head, features: Tensor, labels: Tensor, *, where: str = "") -> Predictions:
    """Return a head's predictions on features (N, D) with labels (N,).

    Raises:
        UserError: A logit is not a finite number; `where` names the head.
    """
    blocks = [
        predictions_from_logits(logits, labels[rows].to(logits.device))
        for rows, logits in finite_logits(head, features, where)
    ]
    return Predictions(
        np.concatenate([block.predicted for block in blocks]), np.concatenate([block.in_top5 for block in blocks])
    )


def predictions_from_logits(logits: Tensor, labels: Tensor) -> Predictions:
    """Return the predictions that finite logits (N, C) make, given the labels (N,).

    Among equal logits the lower class comes first, in the prediction and in the top five alike.
    """
    labels = labels[:, None]
    true_logits = logits.gather(1, labels)
    lower_class = torch.arange(logits.shape[1], device=logits.device) < labels
    ahead = (logits > true_logits).sum(dim=1) + ((logits == true_logits) & lower_class).sum(dim=1)
    return Predictions(logits.argmax(dim=1).cpu().numpy(), (ahead < TOP).cpu().numpy())


def finite_logits(head: Head, features: Tensor, where: str) -> Iterator[tuple[slice, Tensor]]:
    """Yield which images of features (N, D) come next, and their logits (n, C).

    Raises:
        UserError: A logit is not a finite number; `where` names the head.
    """
    for rows, logits in logits_in_blocks(head, features):
        if not torch.stack(logits.aminmax()).isfinite().all():
            raise UserError("a logit is not a finite number: the head is damaged; fit it again", where=where)
        yield rows, logits


def weight_norms(head: Head) -> NDArray[np.float64] | None:
    """Return ‖w_j‖ of each class, scaled as the head scales its logits, (C,); None for a head without class weights.

    In a head of cosines each w_j counts as if it had length 1.
    """
    if head.cosine_scale is not None:
        return np.full(head.classes, head.cosine_scale)
    weight, scale = getattr(head, "weight", None), getattr(head, "scale", None)
    if weight is None:
        return None
    norms = weight.detach().double().norm(dim=1)
    return np.asarray((norms if scale is None else norms * scale.detach().abs()).cpu().numpy())
