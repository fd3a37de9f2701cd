"""A checkpoint's classifier, as its authors evaluated it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ltrec.models.heads import PublishedLwsHead, ScaledHead
from ltrec.rebalancing.methods.published import PublishedSettings

if TYPE_CHECKING:
    from tests.conftest import Banks

PUBLISHED = PublishedSettings(method="published").build(0)


def test_the_scales_multiply_weights_and_bias(banks: Banks) -> None:
    # s_j·(w_j·x + b_j) with s = (2, 0.5, 3): 2·(1·1 + 2·2 + 1) = 12, 0.5·(3·1 − 2) = 0.5, 3·(4·2 + 0) = 24.
    weight, bias = torch.tensor([[1.0, 2.0], [3.0, 0.0], [0.0, 4.0]]), torch.tensor([1.0, -2.0, 0.0])
    joint = PublishedLwsHead(weight, bias, torch.tensor([2.0, 0.5, 3.0]))
    head = PUBLISHED.fit(banks.train, banks.val, joint).head
    assert isinstance(head, ScaledHead)
    assert head(torch.tensor([[1.0, 2.0]])).tolist() == [[12.0, 0.5, 24.0]]


def test_without_scales_it_is_joint(banks: Banks) -> None:
    fitted = PUBLISHED.fit(*banks)
    assert torch.equal(fitted.head(banks.val.plain), banks.joint(banks.val.plain))
    assert (fitted.chosen, fitted.curve) == ({}, [])
