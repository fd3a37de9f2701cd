"""The baseline is the joint classifier itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ltrec.rebalancing.methods.joint import JointSettings

if TYPE_CHECKING:
    from tests.conftest import Banks


def test_the_joint_classifier_as_it_is(banks: Banks) -> None:
    fitted = JointSettings(method="joint").build(0).fit(*banks)
    assert torch.equal(fitted.head(banks.val.plain), banks.joint(banks.val.plain))
    assert (fitted.chosen, fitted.curve) == ({}, [])
