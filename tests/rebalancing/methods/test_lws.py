"""Learnable weight scaling: only scales learn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from pydantic import ValidationError

from ltrec.models.heads import LinearHead, ScaledHead
from ltrec.rebalancing import beside_logits
from ltrec.rebalancing.feature_bank import FeatureBank
from ltrec.rebalancing.methods.lws import LwsSettings
from tests.scores import balanced_accuracy

if TYPE_CHECKING:
    from tests.conftest import Banks


def fit(banks: Banks, **settings: object) -> ScaledHead:
    head = LwsSettings.model_validate({"method": "lws", "batch_size": 14, **settings}).build(0).fit(*banks).head
    assert isinstance(head, ScaledHead)
    return head


def test_only_the_scales_differ_from_joint(banks: Banks) -> None:
    head = fit(banks)
    assert torch.equal(head.weight, banks.joint.weight)
    assert head.bias is not None
    assert banks.joint.bias is not None
    assert torch.equal(head.bias, banks.joint.bias)
    assert head.scale.shape == (3,)
    assert not torch.equal(head.scale, torch.ones(3))


@pytest.mark.parametrize("scale_bias", [True, False])
def test_a_vanishing_learning_rate_leaves_joint(banks: Banks, *, scale_bias: bool) -> None:
    head = fit(banks, lr=1e-30, scale_bias=scale_bias)
    assert torch.equal(head.scale, torch.ones(3))
    torch.testing.assert_close(head(banks.val.plain), banks.joint(banks.val.plain), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("scale_bias", "gradient"), [(True, -1 / 2), (False, -1 / 3)])
def test_one_step_by_hand(*, scale_bias: bool, gradient: float) -> None:
    # Both rows are 1 and both biases 1, so every softmax is ½. With y = 0, 0, 1 and x = 2, 4, 4:
    # dL/ds_0 = ⅓·(−½·z_1 − ½·z_2 + ½·z_3), z = x + 1 with the bias and x without; dL/ds_1 is its opposite.
    bank = FeatureBank(torch.tensor([[[2.0], [4.0], [4.0]]]), torch.tensor([0, 0, 1]), {})
    given = {"method": "lws", "epochs": 1, "batch_size": 3, "lr": 0.1, "weight_decay": 0.0, "scale_bias": scale_bias}
    settings = LwsSettings.model_validate(given | {"sampler": {"name": "instance_balanced"}})
    head = settings.build(0).fit(bank, bank, LinearHead(torch.ones(2, 1), torch.ones(2))).head
    assert isinstance(head, ScaledHead)
    assert head.scale_bias is scale_bias
    torch.testing.assert_close(head.scale.detach(), torch.tensor([1 - 0.1 * gradient, 1 + 0.1 * gradient]))


def test_the_paper_scales_the_bias_and_so_does_the_default() -> None:
    assert LwsSettings(method="lws").scale_bias


def test_a_joint_head_without_bias(banks: Banks) -> None:
    head = fit(banks._replace(joint=LinearHead(banks.joint.weight.detach(), None)))
    assert head.bias is None
    assert not torch.equal(head.scale, torch.ones(3))


def test_the_rare_class_gains(banks: Banks) -> None:
    head = fit(banks, epochs=20)
    reached, before = (balanced_accuracy(h(banks.val.plain), banks.val.labels) for h in (head, banks.joint))
    assert reached > before
    assert head.scale[2] > head.scale[0]


def test_no_epochs_are_refused() -> None:
    with pytest.raises(ValidationError, match="epochs"):
        LwsSettings(method="lws", epochs=0)


@pytest.mark.parametrize("scale_bias", [True, False])
def test_joint_logits_that_have_no_room_are_computed_anew(
    scale_bias: bool, banks: Banks, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = LwsSettings(method="lws", epochs=4, batch_size=8, scale_bias=scale_bias)
    kept = settings.build(0).fit(*banks)
    monkeypatch.setattr(beside_logits, "_KEPT_BYTES", 0)
    anew = settings.build(0).fit(*banks)
    torch.testing.assert_close(kept.head.state_dict(), anew.head.state_dict(), atol=1e-5, rtol=1e-4)
    assert kept.chosen == anew.chosen
