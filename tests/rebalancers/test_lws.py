"""Learnable weight scaling: only scales learn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from pydantic import ValidationError

from ltrec.heads import ScaledHead
from ltrec.rebalancers.lws import LwsSettings
from ltrec.selection import balanced_accuracy

if TYPE_CHECKING:
    from tests.conftest import Banks


def fit(banks: Banks, **settings: float) -> ScaledHead:
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


def test_a_vanishing_learning_rate_leaves_joint(banks: Banks) -> None:
    head = fit(banks, lr=1e-30)
    assert torch.equal(head.scale, torch.ones(3))
    assert torch.equal(head(banks.val.plain), banks.joint(banks.val.plain))


def test_the_rare_class_gains(banks: Banks) -> None:
    head = fit(banks, epochs=20)
    reached, before = (balanced_accuracy(h(banks.val.plain), banks.val.labels) for h in (head, banks.joint))
    assert reached > before
    assert head.scale[2] > head.scale[0]


def test_no_epochs_are_refused() -> None:
    with pytest.raises(ValidationError, match="epochs"):
        LwsSettings(method="lws", epochs=0)
