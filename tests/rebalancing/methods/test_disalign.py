"""DisAlign: where it begins, one step by hand, its loss, and joint logits that are computed once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.testing import assert_close

from ltrec.errors import UserError
from ltrec.models.heads import DisAlignHead, LinearHead
from ltrec.rebalancing import beside_logits
from ltrec.rebalancing.beside_logits import FeaturesAndLogits
from ltrec.rebalancing.feature_bank import FeatureBank
from ltrec.rebalancing.methods.disalign import DisAlignSettings, GeneralisedReweighting
from tests.scores import balanced_accuracy

if TYPE_CHECKING:
    from ltrec.rebalancing.methods.base import FitResult
    from tests.conftest import Banks


def fit(banks: Banks, **settings: Any) -> FitResult:
    return DisAlignSettings.model_validate({"method": "disalign", "batch_size": 14, **settings}).build(0).fit(*banks)


def test_the_papers_figures_are_the_default() -> None:
    settings = DisAlignSettings(method="disalign")
    assert (settings.rho, settings.lr, settings.epochs) == (1.2, 0.1, 10)


def test_a_vanishing_learning_rate_leaves_joint(banks: Banks) -> None:
    head = fit(banks, lr=1e-30).head
    assert_close(head(banks.val.plain), banks.joint(banks.val.plain))


def test_only_the_alignment_learns_and_the_rare_class_gains(banks: Banks) -> None:
    head = fit(banks, epochs=20).head
    assert isinstance(head, DisAlignHead)
    assert torch.equal(head.weight, banks.joint.weight)
    assert banks.joint.bias is not None
    assert head.bias is not None
    assert torch.equal(head.bias, banks.joint.bias)
    assert all(tensor.abs().sum() > 0 for tensor in (head.scale - 1, head.shift, head.confidence, head.confidence_bias))
    reached, before = (balanced_accuracy(of(banks.val.plain), banks.val.labels) for of in (head, banks.joint))
    assert reached > before


def test_weights_by_hand() -> None:
    # π = 3/4 and 1/4. ρ = 1: 1/π is 4/3 and 4, whose sum over images is 2·4 for 4 images, so weights are 2/3 and 2.
    constants = GeneralisedReweighting(rho=1.0).constants(np.array([3, 1]))
    assert constants["weights"] == pytest.approx([2 / 3, 2])
    assert GeneralisedReweighting(rho=0.0).constants(np.array([3, 1]))["weights"] == pytest.approx([1, 1])
    weights = GeneralisedReweighting(rho=1.2).constants(np.array([30, 10, 2]))["weights"]
    assert weights[2] / weights[0] == pytest.approx(15**1.2)
    assert weights @ [30, 10, 2] == pytest.approx(42)
    loss = GeneralisedReweighting(rho=1.0).build(np.array([3, 1]))
    # Equal logits: log 2 for each image, times 2/3 and 2.
    assert float(loss(torch.zeros(2, 2), torch.tensor([0, 1]))) == pytest.approx((2 / 3 + 2) * np.log(2))


def test_one_step_by_hand() -> None:
    # z = (x, −x), σ = ½ and z′ = z at the start; with ρ = 0 each image weighs 1. For one image of x = 1 and class 0:
    # p = softmax(1, −1), g = p − (1, 0) = (−q, q) with q = 1/(1 + e²).
    # dL/dα = ½·g·z = (−q/2, −q/2), dL/dβ = ½·g = (−q/2, q/2), dL/dv = dL/dc = 0, since z′ = z whatever σ is.
    bank = FeatureBank(torch.tensor([[[1.0], [1.0]]]), torch.tensor([0, 1]), {})
    train = FeatureBank(torch.tensor([[[1.0], [-1.0]]]), torch.tensor([0, 1]), {})
    joint = LinearHead(torch.tensor([[1.0], [-1.0]]), None)
    given = {"method": "disalign", "epochs": 1, "batch_size": 2, "lr": 0.1, "weight_decay": 0.0, "rho": 0.0}
    head = DisAlignSettings.model_validate(given).build(0).fit(train, bank, joint).head
    assert isinstance(head, DisAlignHead)
    # The second image, x = −1 of class 1, is the first one mirrored: the same dL/dα, the opposite dL/dβ.
    q = 1 / (1 + np.exp(2))
    assert_close(head.scale.detach(), torch.full((2,), 1 + 0.1 * q / 2, dtype=torch.float32))
    assert_close(head.shift.detach(), torch.zeros(2))
    assert_close(head.confidence.detach(), torch.zeros(1))


def test_joint_logits_that_have_no_room_are_computed_anew(banks: Banks, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = fit(banks, epochs=4)
    monkeypatch.setattr(beside_logits, "_KEPT_BYTES", 0)
    anew = fit(banks, epochs=4)
    assert_close(kept.head.state_dict(), anew.head.state_dict(), atol=1e-5, rtol=1e-4)
    assert kept.chosen == anew.chosen


def test_batches_have_each_views_own_logits(banks: Banks) -> None:
    drawn = np.array([3, 41, 7, 0, 11, 30])
    plain = list(banks.train.batches(drawn, 2, epoch=1, seed=5))
    beside = list(FeaturesAndLogits.of(banks.train, banks.joint).batches(drawn, 2, epoch=1, seed=5))
    for features, both in zip(plain, beside, strict=True):
        assert_close(both, torch.cat((features, banks.joint(features).detach()), dim=1))


def test_several_learning_rates(banks: Banks) -> None:
    fitted = fit(banks, more_lrs=[0.01, 0.5])
    assert {row["lr"] for row in fitted.curve} == {0.1, 0.01, 0.5}


def test_a_class_without_images_is_refused(banks: Banks) -> None:
    known = banks.train.labels != 2
    train = FeatureBank(banks.train.features[:, known], banks.train.labels[known], {})
    with pytest.raises(UserError, match="class 2 has no training image"):
        fit(banks._replace(train=train))


def test_odd_settings_are_refused() -> None:
    for odd in ({"rho": -0.1}, {"rho": 11.0}, {"epochs": 0}, {"lr": 0.0}):
        with pytest.raises(ValidationError, match=next(iter(odd))):
            DisAlignSettings.model_validate({"method": "disalign", **odd})
