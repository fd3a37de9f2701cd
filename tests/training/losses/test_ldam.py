"""LDAM: margins by hand, as a slow formula, and never on a head without cosines."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from ltrec.config.represent import RepresentSettings
from ltrec.rebalancing.methods.crt import CrtSettings
from ltrec.rebalancing.methods.lws import LwsSettings
from ltrec.training.losses.ldam import Ldam

COUNTS = np.array([81, 16, 1])


def test_by_hand() -> None:
    # n^(−¼) is ⅓, ½ and 1; the largest is to be ½, so that margins are ⅙, ¼ and ½. With s = 12 an image of class 1 with
    # cosines 0.5, 0.5 and 0 has logits 6, 6 − 12·¼ = 3 and 0: −log(e³ / (e⁶ + e³ + 1)) = log(e³ + 1 + e⁻³).
    loss = Ldam(name="ldam").build(COUNTS, 12.0)
    expected = math.log(math.exp(3) + 1 + math.exp(-3))
    assert float(loss(12 * torch.tensor([[0.5, 0.5, 0.0]]), torch.tensor([1]))) == pytest.approx(expected, abs=1e-5)
    assert loss.margins.tolist() == pytest.approx([1 / 6, 1 / 4, 1 / 2])


def test_as_a_slow_formula() -> None:
    cosines = torch.rand(20, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    labels = torch.arange(20) % 3
    margins, expected = [0.2 * (1 / n) ** 0.25 for n in COUNTS], 0.0
    for row, label in zip(cosines.tolist(), labels.tolist(), strict=True):
        logits = [30 * (cosine - margins[j] * (j == label)) for j, cosine in enumerate(row)]
        expected += math.log(sum(math.exp(logit - logits[label]) for logit in logits))
    loss = Ldam(name="ldam", max_margin=0.2).build(COUNTS, 30.0)(30 * cosines, labels)
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_without_margins_it_is_cross_entropy() -> None:
    logits, labels = torch.tensor([[3.0, -2.0, 1.0]]), torch.tensor([2])
    loss = Ldam(name="ldam", max_margin=0.0).build(COUNTS, 30.0)(logits, labels)
    torch.testing.assert_close(loss, F.cross_entropy(logits, labels))


GIVEN: dict[str, Any] = {"loss": {"name": "ldam"}, "sampler": {"name": "instance_balanced"}}


def test_a_linear_head_is_refused_before_anything_is_trained() -> None:
    message = r"ldam takes its margins from cosines, .* has none; allowed: head: \{name: cosine\}, or another loss"
    backbone = {"backbone": {"name": "cifar_resnet8"}}
    with pytest.raises(ValidationError, match=message):
        RepresentSettings.model_validate(GIVEN | backbone)
    with pytest.raises(ValidationError, match=message):
        CrtSettings.model_validate(GIVEN | {"method": "crt"})
    head = {"head": {"name": "cosine", "scale": 20.0}}
    assert RepresentSettings.model_validate(GIVEN | backbone | head).head.name == "cosine"
    CrtSettings.model_validate(GIVEN | {"method": "crt"} | head)


def test_and_so_is_a_head_of_scales() -> None:
    with pytest.raises(ValidationError, match=r"ldam takes its margins from cosines, .*; allowed: head: "):
        LwsSettings.model_validate(GIVEN | {"method": "lws"})
