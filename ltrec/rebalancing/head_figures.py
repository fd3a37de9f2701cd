"""How well a fitted head does on train and val, before anything is compared."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ltrec.models.heads import logits_of, predictions_of
from ltrec.rebalancing.selection import fit_temperature, mean_recall

if TYPE_CHECKING:
    from torch import Tensor

    from ltrec.models.heads import Head
    from ltrec.rebalancing.feature_bank import FeatureBank


def head_figures(head: Head, train: FeatureBank, val: FeatureBank) -> dict[str, dict[str, float]]:
    """Return the accuracy on the plain views of val and train, overall and balanced; on val also the log-likelihood.

    By the log-likelihood, evaluation tells apart variants that are equally accurate on val.

    Raises:
        UserError: The logits on val are not finite.
    """
    val_logits, train_predictions = logits_of(head, val.plain), predictions_of(head, train.plain)
    val_labels, train_labels = (bank.labels.to(val_logits.device) for bank in (val, train))
    log_likelihood = -fit_temperature(val_logits, val_labels)[1]
    return {
        "val": _accuracy(val_logits.argmax(dim=1), val_labels) | {"log_likelihood": log_likelihood},
        "train": _accuracy(train_predictions, train_labels),
    }


def _accuracy(predicted: Tensor, labels: Tensor) -> dict[str, float]:
    return {"all": float((predicted == labels).double().mean()), "balanced": mean_recall(predicted, labels)}
