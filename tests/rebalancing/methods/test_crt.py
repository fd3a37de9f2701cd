"""Classifier re-training starts anew and is balanced."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from ltrec.errors import UserError
from ltrec.models.heads import CosineHead, LinearHead
from ltrec.models.joint_heads import CosineJointHead, JointHeadSettings, LinearJointHead
from ltrec.rebalancing.methods.crt import CrtSettings
from ltrec.training import samplers
from tests.scores import balanced_accuracy

if TYPE_CHECKING:
    from tests.conftest import Banks

SETTINGS = CrtSettings(method="crt", epochs=15, batch_size=14)


def test_the_rare_class_is_found_where_joint_misses_it(banks: Banks) -> None:
    fitted = SETTINGS.build(0).fit(*banks)
    rare = banks.val.labels == 2
    assert (banks.joint(banks.val.plain).argmax(dim=1)[rare] == 2).float().mean() < 0.5
    assert (fitted.head(banks.val.plain).argmax(dim=1)[rare] == 2).float().mean() > 0.5


def test_what_joint_learnt_is_not_used(banks: Banks) -> None:
    other = LinearHead(torch.full((3, 5), 7.0), None)
    first, second = SETTINGS.build(0).fit(*banks).head, SETTINGS.build(0).fit(banks.train, banks.val, other).head
    assert isinstance(first, LinearHead)
    assert isinstance(second, LinearHead)
    assert torch.equal(first.weight, second.weight)
    assert first.bias is not None


def test_the_papers_way_is_the_default() -> None:
    defaults = CrtSettings(method="crt")
    assert defaults.sampler == samplers.ClassBalanced(per_visit=4)
    assert (defaults.init, defaults.images) == ("random", False)


def test_from_joint_on(banks: Banks) -> None:
    still = SETTINGS.model_copy(update={"init": "joint", "lr": 1e-30}).build(0).fit(*banks).head
    assert torch.equal(still(banks.val.plain), banks.joint(banks.val.plain))
    moved = SETTINGS.model_copy(update={"init": "joint"}).build(0).fit(*banks).head
    assert isinstance(moved, LinearHead)
    assert not torch.equal(moved.weight, banks.joint.weight)
    assert moved.bias is not None
    assert banks.joint.bias is not None
    assert not torch.equal(moved.bias, banks.joint.bias)


def test_a_joint_head_without_bias_stays_without(banks: Banks) -> None:
    joint = LinearHead(banks.joint.weight.detach(), None)
    head = SETTINGS.model_copy(update={"init": "joint"}).build(0).fit(banks.train, banks.val, joint).head
    assert isinstance(head, LinearHead)
    assert head.bias is None


def test_a_cosine_head_is_found_as_well(banks: Banks) -> None:
    head = CosineJointHead(name="cosine", scale=8.0)
    fitted = SETTINGS.model_copy(update={"head": head}).build(0).fit(*banks).head
    assert isinstance(fitted, CosineHead)
    assert fitted.cosine_scale == 8.0
    assert balanced_accuracy(fitted(banks.val.plain), banks.val.labels) > 0.6


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (LinearJointHead(), "which is cosine with scale 8.0, and head asks for linear; allowed: init: random"),
        (CosineJointHead(name="cosine"), "cosine with scale 8.0, and head asks for cosine with scale 30.0"),
    ],
)
def test_it_goes_on_only_with_a_head_of_its_kind(banks: Banks, head: JointHeadSettings, message: str) -> None:
    joint = CosineHead(banks.joint.weight.detach().clone(), 8.0)
    settings = SETTINGS.model_copy(update={"head": head, "init": "joint"})
    with pytest.raises(UserError, match=message):
        settings.build(0).fit(banks.train, banks.val, joint)


@pytest.mark.parametrize("sampler", [samplers.InstanceBalanced(), samplers.SquareRoot(), samplers.Power(q=0.3),
                                     samplers.ProgressivelyBalanced()], ids=lambda sampler: sampler.name)  # fmt: skip
def test_with_any_sampler(banks: Banks, sampler: samplers.SamplerSettings) -> None:
    balanced = SETTINGS.build(0).fit(*banks).head(banks.val.plain)
    other = SETTINGS.model_copy(update={"sampler": sampler}).build(0).fit(*banks).head(banks.val.plain)
    assert torch.isfinite(other).all()
    assert not torch.equal(other, balanced)


def test_the_seed_decides(banks: Banks) -> None:
    first, second = (SETTINGS.build(seed).fit(*banks).head(banks.val.plain) for seed in (0, 1))
    assert not torch.equal(first, second)


def test_the_epoch_that_was_kept(banks: Banks) -> None:
    fitted = SETTINGS.build(0).fit(*banks)
    kept = int(fitted.chosen["epoch"])
    assert len(fitted.curve) == 15
    assert fitted.curve[kept - 1]["val"] == pytest.approx(
        balanced_accuracy(fitted.head(banks.val.plain), banks.val.labels)
    )
