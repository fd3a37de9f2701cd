"""A fitted head on train and val: its calibration, and what variants are compared by before test is looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from ltrec.errors import UserError
from ltrec.models.heads import predictions_of
from ltrec.rebalancing.selection import Score, fit_temperature, head_logits, mean_recall

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from ltrec.models.heads import Head
    from ltrec.rebalancing.feature_bank import FeatureBank

ANY_CLASS = 0.1
"""Images of any class beside those of val. Measured on digits with one val image a class, the mean negative
log-likelihood of cRT on test is 3.4 with none, 0.23 with 0.1 and 0.35 with 1; with 18 a class 0.225, 0.225, 0.227."""


def calibrate(head: Head, val: FeatureBank) -> float:
    """Set the head's temperature so that its probabilities fit val, and return it; which class wins stays the same.

    Temperature scaling after Guo et al. 2017, section 4.2, by likelihood over the plain views of val. Beside its N
    images stands a tenth of one whose label may be any class: where no image is mistaken, likelihood alone knows no
    end, and every probability would be 1.

    Raises:
        UserError: The logits on val are not finite.
    """
    labels = val.labels.to(head.temperature.device)
    logits = head_logits(head, val.plain)
    head.temperature.mul_(fit_temperature(logits, labels, smoothing=ANY_CLASS / (len(labels) + ANY_CLASS))[0])
    return float(head.temperature)


def head_figures(head: Head, train: FeatureBank, val: FeatureBank) -> dict[str, dict[str, float]]:
    """Return the accuracy on the plain views of val and train, overall and balanced; on val also the log-likelihood.

    By the log-likelihood, evaluation tells apart variants that are equally accurate on val.

    Raises:
        UserError: The logits on val are not finite.
    """
    val_logits = head_logits(head, val.plain)
    val_predictions = torch.cat([block.argmax(dim=1) for block in val_logits])
    train_predictions = predictions_of(head, train.plain)
    val_labels, train_labels = (bank.labels.to(head.temperature.device) for bank in (val, train))
    log_likelihood = -fit_temperature(val_logits, val_labels)[1]
    return {
        "val": _accuracy(val_predictions, val_labels) | {"log_likelihood": log_likelihood},
        "train": _accuracy(train_predictions, train_labels),
    }


def score_on_val(metrics: dict[str, Any], file: Path) -> Score:
    """Return by what variants are compared on val, out of the metrics with a head's figures that a file holds.

    Raises:
        UserError: They are not there.
    """
    try:
        return Score(*(float(metrics["val"][name]) for name in Score._fields))
    except (KeyError, TypeError, ValueError):
        raise UserError(
            f"has no numbers val.{' and val.'.join(Score._fields)}; delete it and run `ltrec rebalance` again",
            where=str(file),
        ) from None


def _accuracy(predicted: Tensor, labels: Tensor) -> dict[str, float]:
    return {"all": float((predicted == labels).double().mean()), "balanced": mean_recall(predicted, labels)}
