"""A head's figures on train and val, by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from ltrec.errors import UserError
from ltrec.models.heads import LinearHead, logits_of
from ltrec.rebalancing.feature_bank import FeatureBank
from ltrec.rebalancing.head_figures import calibrate, head_figures, score_on_val

if TYPE_CHECKING:
    from tests.conftest import Banks

# Every image lies on its class's axis, but the third of class 0, which lies on axis 1.
FEATURES = torch.eye(2)[[0, 0, 1, 1]]
TRAIN = FeatureBank(torch.stack([FEATURES, -FEATURES]), torch.tensor([0, 0, 0, 1]), {})
VAL = FeatureBank(torch.eye(2)[None, [0, 1]], torch.tensor([0, 1]), {})


def test_figures_by_hand() -> None:
    figures = head_figures(LinearHead(torch.eye(2), None), TRAIN, VAL)
    assert figures["train"] == {"all": 0.75, "balanced": pytest.approx((2 / 3 + 1) / 2)}
    # Without a mistake on val, the best temperature is so low that the likelihood is 1.
    assert figures["val"] == {"all": 1.0, "balanced": 1.0, "log_likelihood": pytest.approx(0, abs=1e-6)}


def test_the_temperature_that_fits_by_hand() -> None:
    # Three images of four lie with their own class. A fit says p = 1 / (1 + exp(−a)) = (3 + .05) / 4.1 of it, with a
    # tenth of an image more that may be of either class: a = log(3.05 / 1.05), which was 1 before.
    expected = 1 / math.log(3.05 / 1.05)
    head = LinearHead(torch.eye(2), None)
    val = FeatureBank(torch.eye(2)[None, [0, 0, 1, 1]], torch.tensor([0, 0, 1, 0]), {})
    assert calibrate(head, val) == pytest.approx(expected, rel=1e-3)
    assert float(head.temperature) == pytest.approx(expected, rel=1e-3)
    # Calibrated again, it stays; a head whose logits are ten times as large comes to the same probabilities.
    assert calibrate(head, val) == pytest.approx(expected, rel=1e-3)
    tenfold = LinearHead(10 * torch.eye(2), None)
    assert calibrate(tenfold, val) == pytest.approx(10 * expected, rel=1e-3)


def test_a_val_without_a_mistake_makes_nobody_certain() -> None:
    head = LinearHead(torch.eye(2), None)
    calibrate(head, VAL)
    # Of two images and the tenth of either class, 2.05 of 2.1 are right.
    assert logits_of(head, VAL.plain).softmax(dim=1).diagonal().tolist() == pytest.approx(
        [2.05 / 2.1, 2.05 / 2.1], rel=1e-3
    )


def test_calibration_changes_no_prediction(banks: Banks) -> None:
    head = banks.joint.duplicate()
    before = logits_of(head, banks.train.plain).argmax(dim=1)
    assert calibrate(head, banks.val) != 1
    assert torch.equal(logits_of(head, banks.train.plain).argmax(dim=1), before)


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
    with pytest.raises(UserError, match="logits on val are not finite"):
        calibrate(LinearHead(torch.eye(2) * math.inf, None), VAL)
