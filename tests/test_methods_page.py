"""docs/methods.md has a card for each sampler, loss, augmentation, mix and method."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from ltrec.config import params
from ltrec.data.images.erasing import EraseSettings
from ltrec.data.images.policies import PolicySettings
from ltrec.rebalancing.methods import RebalancerSettings
from ltrec.rebalancing.probe import ProbeSettings
from ltrec.training.losses import LossSettings
from ltrec.training.mix_settings import MixSettings
from ltrec.training.optim import AdamW
from ltrec.training.samplers import SamplerSettings
from tests.contracts.members import examples

PAGE = (Path(__file__).parents[1] / "docs" / "methods.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE))


@pytest.mark.parametrize(
    ("section", "union", "tag"),
    [
        ("Sampling", SamplerSettings, "name"),
        ("Losses", LossSettings, "name"),
        ("Augmentation", PolicySettings, "name"),
        ("Augmentation", EraseSettings, "name"),
        ("Mixing", MixSettings, "name"),
        ("Classifiers", RebalancerSettings, "method"),
    ],
)
def test_each_member_has_a_card(section: str, union: Any, tag: str) -> None:
    cards = re.findall(r"^### (.+)$", SECTIONS[section], re.MULTILINE)
    assert {getattr(member, tag) for member in examples(union)} <= set(cards)


def test_the_page_names_the_depths_and_defaults_that_there_are() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    settings = params.parse(f"{block}rebalance: {{joint: {{method: joint}}}}\n").represent
    assert isinstance(settings.optimizer, AdamW)
    assert (settings.optimizer.lr, settings.optimizer.layer_decay) == (2.5e-4, 0.75)
    probe = ProbeSettings()
    rates = ", ".join(str(rate) for rate in sorted([probe.lr, *probe.more_lrs]))
    assert f"`lr` and `more_lrs` ({rates}), `epochs` ({probe.epochs})" in PAGE
