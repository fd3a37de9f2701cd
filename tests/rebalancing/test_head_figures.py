"""A head's figures on train and val, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from ltrec.errors import UserError
from ltrec.models.heads import LinearHead
from ltrec.rebalancing.feature_bank import FeatureBank
from ltrec.rebalancing.head_figures import head_figures

# Every image lies on its class's axis, but the third of class 0, which lies on axis 1.
FEATURES = torch.eye(2)[[0, 0, 1, 1]]
TRAIN = FeatureBank(torch.stack([FEATURES, -FEATURES]), torch.tensor([0, 0, 0, 1]), {})
VAL = FeatureBank(torch.eye(2)[None, [0, 1]], torch.tensor([0, 1]), {})


def test_figures_by_hand() -> None:
    figures = head_figures(LinearHead(torch.eye(2), None), TRAIN, VAL)
    assert figures["train"] == {"all": 0.75, "balanced": pytest.approx((2 / 3 + 1) / 2)}
    # Without a mistake on val, the best temperature is so low that the likelihood is 1.
    assert figures["val"] == {"all": 1.0, "balanced": 1.0, "log_likelihood": pytest.approx(0, abs=1e-6)}


def test_logits_that_are_not_finite_are_refused() -> None:
    with pytest.raises(UserError, match="logits on val are not finite"):
        head_figures(LinearHead(torch.eye(2) * math.inf, None), TRAIN, VAL)
