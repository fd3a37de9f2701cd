"""Post-hoc logit adjustment: the formula, the choice, and who cannot be adjusted."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch
from pydantic import ValidationError
from torch.testing import assert_close

from ltrec.errors import UserError
from ltrec.models.heads import LinearHead
from ltrec.rebalancing.feature_bank import FeatureBank
from ltrec.rebalancing.methods.logit_adjustment import LogitAdjustmentSettings
from tests.scores import balanced_accuracy

if TYPE_CHECKING:
    from ltrec.rebalancing.methods.base import FitResult
    from tests.conftest import Banks


def fit(banks: Banks, *taus: float) -> FitResult:
    return LogitAdjustmentSettings(method="logit_adjustment", taus=list(taus)).build(0).fit(*banks)


def test_the_offset_takes_the_prior_out(banks: Banks) -> None:
    # 30, 10 and 2 of 42 images.
    head = fit(banks, 2.0).head
    offset = torch.tensor([-2 * math.log(count / 42) for count in (30, 10, 2)])
    assert_close(head(banks.val.plain), banks.joint(banks.val.plain) + offset)
    assert (head.prior_power, banks.joint.offset) == (0.0, None)


def test_tau_0_is_joint(banks: Banks) -> None:
    head = fit(banks, 0.0).head
    assert_close(head.scores(banks.val.plain), banks.joint(banks.val.plain))


def test_logits_are_adjusted_at_the_joint_heads_temperature(banks: Banks) -> None:
    joint = LinearHead(*banks.joint.cloned_parameters())
    joint.temperature.fill_(4.0)
    head = fit(banks._replace(joint=joint), 1.0).head
    wanted = joint(banks.val.plain) - torch.tensor([math.log(count / 42) for count in (30, 10, 2)])
    assert_close(head(banks.val.plain), wanted)


def test_the_best_tau_on_val_is_taken(banks: Banks) -> None:
    fitted = LogitAdjustmentSettings(method="logit_adjustment").build(0).fit(*banks)
    assert [row["tau"] for row in fitted.curve] == pytest.approx([0.1 * step for step in range(31)])
    best = max(float(row["val"]) for row in fitted.curve)
    assert best > float(fitted.curve[0]["val"]), "else any τ would do"
    assert balanced_accuracy(fitted.head(banks.val.plain), banks.val.labels) == pytest.approx(best)


@pytest.mark.parametrize("method", ["logit_adjustment", "gda", "ridge", "knn"])
def test_a_class_without_images_is_refused_in_a_line(banks: Banks, method: str) -> None:
    from pydantic import TypeAdapter

    from ltrec.rebalancing.methods import RebalancerSettings

    known = banks.train.labels != 1
    train = FeatureBank(banks.train.features[:, known], banks.train.labels[known], {})
    rebalancer = TypeAdapter(RebalancerSettings).validate_python({"method": method}).build(0)
    with pytest.raises(UserError, match=rf"^class 1 .* has no training image, and {method} needs one; allowed: "):
        rebalancer.fit(train, banks.val, banks.joint)


def test_odd_taus_are_refused() -> None:
    for taus in ([], [-0.1], [float("nan")], [1e3]):
        with pytest.raises(ValidationError, match="taus"):
            LogitAdjustmentSettings(method="logit_adjustment", taus=taus)
