"""A head's figures on train and val, by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from ltrec.errors import UserError
from ltrec.models.heads import LinearHead
from ltrec.rebalancing.feature_bank import FeatureBank
from ltrec.rebalancing.head_figures import head_figures, score_on_val

# Every image lies on its class's axis, but the third of class 0, which lies on axis 1.
FEATURES = torch.eye(2)[[0, 0, 1, 1]]
TRAIN = FeatureBank(torch.stack([FEATURES, -FEATURES]), torch.tensor([0, 0, 0, 1]), {})
VAL = FeatureBank(torch.eye(2)[None, [0, 1]], torch.tensor([0, 1]), {})


def test_figures_by_hand() -> None:
    figures = head_figures(LinearHead(torch.eye(2), None), TRAIN, VAL)
    assert figures["train"] == {"all": 0.75, "balanced": pytest.approx((2 / 3 + 1) / 2)}
    # Without a mistake on val, the best temperature is so low that the likelihood is 1.
    assert figures["val"] == {"all": 1.0, "balanced": 1.0, "log_likelihood": pytest.approx(0, abs=1e-6)}


def test_variants_are_compared_by_balanced_accuracy_then_likelihood() -> None:
    figures = head_figures(LinearHead(torch.eye(2), None), TRAIN, VAL)
    assert score_on_val(figures, Path("metrics.json")) == (1.0, figures["val"]["log_likelihood"])
    unreadable: tuple[dict[str, Any], ...] = ({}, {"val": None}, {"val": {"balanced": "much", "log_likelihood": 0}})
    for damaged in unreadable:
        with pytest.raises(UserError, match=r"^metrics\.json: has no numbers val\.balanced and val\.log_likelihood"):
            score_on_val(damaged, Path("metrics.json"))


def test_logits_that_are_not_finite_are_refused() -> None:
    with pytest.raises(UserError, match="logits on val are not finite"):
        head_figures(LinearHead(torch.eye(2) * math.inf, None), TRAIN, VAL)
