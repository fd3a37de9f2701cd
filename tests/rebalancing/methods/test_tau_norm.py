"""τ-normalisation's identities and its choice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from pydantic import ValidationError
from torch.testing import assert_close

from ltrec.errors import UserError
from ltrec.models.heads import LinearHead
from ltrec.rebalancing.feature_bank import FeatureBank
from ltrec.rebalancing.head_figures import calibrate
from ltrec.rebalancing.methods.tau_norm import TauNormSettings

if TYPE_CHECKING:
    from ltrec.rebalancing.methods.base import FitResult
    from tests.conftest import Banks


def fit(banks: Banks, *taus: float) -> FitResult:
    return TauNormSettings(method="tau_norm", taus=list(taus)).build(0).fit(*banks)


def test_the_whole_grid_as_a_slow_loop(banks: Banks) -> None:
    fitted = TauNormSettings(method="tau_norm").build(0).fit(*banks)
    rows = banks.joint.weight.detach().double().tolist()
    images = list(zip(banks.val.plain.double().tolist(), banks.val.labels.tolist(), strict=True))

    def balanced(tau: float) -> float:
        right = [0, 0, 0]
        for x, label in images:
            logits = [
                sum(w * part for w, part in zip(row, x, strict=True)) / sum(w * w for w in row) ** (tau / 2)
                for row in rows
            ]
            right[label] += logits.index(max(logits)) == label
        return sum(right) / 24  # 8 images of each class

    assert [row["val"] for row in fitted.curve] == pytest.approx([balanced(float(row["tau"])) for row in fitted.curve])
    assert len({row["val"] for row in fitted.curve}) > 3, "else any τ would do"
    assert balanced(float(fitted.chosen["tau"])) == pytest.approx(max(float(row["val"]) for row in fitted.curve))


def test_tau_0_is_joint_without_bias(banks: Banks) -> None:
    head = fit(banks, 0.0).head
    assert isinstance(head, LinearHead)
    assert head.bias is None
    assert torch.equal(head.weight, banks.joint.weight)
    assert torch.equal(head.scores(banks.val.plain), LinearHead(banks.joint.weight.detach(), None)(banks.val.plain))


def test_tau_1_has_unit_rows(banks: Banks) -> None:
    head = fit(banks, 1.0).head
    assert isinstance(head, LinearHead)
    assert_close(head.weight.norm(dim=1), torch.ones(3))


def test_the_grid_of_the_paper_is_the_default() -> None:
    assert TauNormSettings(method="tau_norm").taus == pytest.approx([0.1 * step for step in range(21)])


def test_tau_is_chosen_on_val_and_the_curve_has_every_candidate() -> None:
    # Class 1's row is ten times shorter, so that only from τ = 1 on its images win: 0.1·2 < 1·0.5, 2 > 0.5.
    joint = LinearHead(torch.diag(torch.tensor([1.0, 0.1])), None)
    images = torch.tensor([[[1.0, 0.1], [0.5, 2.0], [0.5, 2.0]]])
    bank = FeatureBank(images, torch.tensor([0, 1, 1]), {})
    fitted = TauNormSettings(method="tau_norm", taus=[0.0, 0.2, 1.0]).build(0).fit(bank, bank, joint)
    assert fitted.chosen["tau"] == 1.0
    assert [row["tau"] for row in fitted.curve] == [0.0, 0.2, 1.0]
    assert [row["val"] for row in fitted.curve] == pytest.approx([0.5, 0.5, 1.0])


def test_a_tau_beyond_all_use_is_refused() -> None:
    assert TauNormSettings(method="tau_norm", taus=[10.0]).taus == [10.0]
    with pytest.raises(ValidationError, match="less than or equal to 10"):
        TauNormSettings(method="tau_norm", taus=[300.0])


def test_a_tau_that_underflows_is_not_chosen(banks: Banks) -> None:
    # Row 0 has the norm 1e-6: to the power 10 that is 0 in float32, and its weights become inf.
    joint = LinearHead(torch.diag(torch.tensor([1e-6, 1.0, 1.0])) @ torch.eye(3, 5), None)
    settings = TauNormSettings(method="tau_norm", taus=[10.0, 0.0])
    fitted = settings.build(0).fit(banks.train, banks.val, joint)
    assert fitted.chosen["tau"] == 0.0
    assert torch.isfinite(fitted.head(banks.val.plain)).all()
    assert fitted.curve[0] == {"tau": 10.0, "val": 0.0}
    alone = TauNormSettings(method="tau_norm", taus=[10.0]).build(0).fit(banks.train, banks.val, joint)
    with pytest.raises(UserError, match="the logits on val are not finite"):
        calibrate(alone.head, banks.val)
