"""What evaluation reads off a head: predictions and probabilities, block by block, and the norms of its class weights.

N images, C classes, D features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from ltrec.errors import UserError
from ltrec.evaluation.calibration import BINS, Certainty, bin_of, class_balanced
from ltrec.models.heads import LinearHead, ScaledHead, logits_in_blocks

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


def predict(head: Head, features: Tensor, labels: Tensor, *, where: str = "") -> tuple[Predictions, Certainty]:
    """Return a head's predictions on features (N, D) with labels (N,), and how sure it is of them.

    Raises:
        UserError: A logit is not a finite number; `where` names the head.
    """
    weights = class_balanced(labels.cpu().numpy())
    gaps = np.zeros((head.classes, BINS))
    blocks = []
    for rows, logits in finite_logits(head, features, where):
        block_labels = labels[rows].to(logits.device)
        read = predictions_from_logits(logits, block_labels)
        certainty = certainty_from_logits(logits, block_labels, weights[rows])
        gaps += certainty.gaps
        blocks.append((read.predicted, read.in_top5, certainty.confidence, certainty.log_likelihood))
    predicted, in_top5, confidence, log_likelihood = map(np.concatenate, zip(*blocks, strict=True))
    return Predictions(predicted, in_top5), Certainty(confidence, log_likelihood, gaps)


def predictions_from_logits(logits: Tensor, labels: Tensor) -> Predictions:
    """Return the predictions that finite logits (N, C) make, given the labels (N,).

    Among equal logits the lower class comes first, in the prediction and in the top five alike.
    """
    labels = labels[:, None]
    true_logits = logits.gather(1, labels)
    lower_class = torch.arange(logits.shape[1], device=logits.device) < labels
    ahead = (logits > true_logits).sum(dim=1) + ((logits == true_logits) & lower_class).sum(dim=1)
    return Predictions(logits.argmax(dim=1).cpu().numpy(), (ahead < TOP).cpu().numpy())


def certainty_from_logits(logits: Tensor, labels: Tensor, weights: NDArray[np.float64]) -> Certainty:
    """Return how sure finite logits (N, C) are, given the labels and the images' weights (N,).

    At most B − 1 probabilities of an image lie above the first bin. These are sorted into bins one by one; the first
    bin's sum is what they leave of each class's sum.
    """
    largest = logits.amax(dim=1, keepdim=True)
    terms = (logits - largest).exp()  # of the largest logit 1 exactly: sums in float64 tell confidences near 1 apart
    totals = terms.sum(dim=1, dtype=torch.float64)
    images, classes = (terms > (totals * (0.999 / BINS)).to(terms.dtype)[:, None]).nonzero(as_tuple=True)
    p = (terms[images, classes] / totals[images]).cpu().numpy()
    p_true = (terms.gather(1, labels[:, None])[:, 0] / totals).cpu().numpy()
    true_logits = (logits.gather(1, labels[:, None]) - largest)[:, 0].double()
    all_p = (torch.from_numpy(weights).to(totals.device) / totals).to(terms.dtype) @ terms

    shape = logits.shape[1], BINS
    gaps = np.zeros(shape)
    gaps[:, 1:] = _binned(p, classes.cpu().numpy(), weights[images.cpu().numpy()] * p, shape)[:, 1:]
    gaps[:, 0] = all_p.double().cpu().numpy() - gaps.sum(axis=1)
    gaps -= _binned(p_true, labels.cpu().numpy(), weights, shape)
    return Certainty((1 / totals).cpu().numpy(), (true_logits - totals.log()).cpu().numpy(), gaps)


def _binned(
    p: NDArray[np.float64], classes: NDArray[np.int64], values: NDArray[np.float64], shape: tuple[int, int]
) -> NDArray[np.float64]:
    """Return the sums of values (K,), each of a class and a probability, by class and bin, (C, B)."""
    return (
        np.bincount(classes * BINS + bin_of(p), values, shape[0] * BINS).astype(np.float64, copy=False).reshape(shape)
    )


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
    if not isinstance(head, LinearHead | ScaledHead):
        return None
    weight, scale = head.weight, head.scale if isinstance(head, ScaledHead) else None
    norms = weight.detach().double().norm(dim=1)
    return np.asarray((norms if scale is None else norms * scale.detach().abs()).cpu().numpy())
