"""What every joint head does; and that no method takes for granted that it is linear."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from ltrec.errors import UserError
from ltrec.models.heads import CosineHead, LinearHead, from_state
from ltrec.models.joint_heads import CosineJointHead, JointHeadSettings
from ltrec.rebalancing.methods import RebalancerSettings
from ltrec.rebalancing.methods.crt import CrtSettings
from ltrec.rebalancing.methods.joint import JointSettings
from ltrec.rebalancing.probe import ProbeSettings
from tests.contracts.members import examples, through_yaml
from tests.scores import balanced_accuracy

if TYPE_CHECKING:
    from tests.conftest import Banks

each = pytest.mark.parametrize("settings", examples(JointHeadSettings), ids=lambda settings: settings.name)


@each
def test_yaml_round_trip(settings: Any) -> None:
    assert through_yaml(settings, JointHeadSettings) == settings


@each
def test_it_is_new_and_can_be_kept(settings: Any) -> None:
    head = settings.build(3, 5)
    assert (head.classes, head.dim) == (3, 5)
    assert head(torch.randn(7, 5)).shape == (7, 3)
    assert any(parameter.requires_grad for parameter in head.parameters())
    again = from_state(head.state_dict(), {"head": head.kind, "options": head.options()}, where="here")
    features = torch.randn(7, 5)
    assert torch.equal(again(features), head.eval()(features))


def cosine(banks: Banks) -> CosineHead:
    return CosineHead(banks.joint.weight.detach().clone(), 8.0)


@each
def test_a_probe_can_fit_it(settings: Any, banks: Banks) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        head = settings.build(3, 5)
    ProbeSettings(epochs=5, batch_size=8).fit(head, banks.train, banks.val, seed=0)
    assert balanced_accuracy(head(banks.val.plain), banks.val.labels) > 0.5


@pytest.mark.parametrize("settings", examples(RebalancerSettings), ids=lambda settings: settings.method)
def test_each_method_takes_another_joint_head_or_says_that_it_cannot(settings: Any, banks: Banks) -> None:
    joint = cosine(banks)
    before = joint.weight.detach().clone()
    try:
        head = settings.build(0).fit(banks.train, banks.val, joint).head
    except UserError as error:
        assert "linear joint head, and this one is cosine; allowed" in str(error)  # noqa: PT017
    else:
        assert (head.classes, head.dim) == (3, 5)
    assert torch.equal(joint.weight, before)


def test_the_joint_method_and_a_classifier_that_begins_with_it_keep_its_kind(banks: Banks) -> None:
    joint = cosine(banks).shifted(torch.tensor([0.5, 0.0, -0.5]))
    plain = JointSettings(method="joint").build(0).fit(banks.train, banks.val, joint).head
    assert torch.equal(plain(banks.val.plain), joint(banks.val.plain))
    head = CosineJointHead(name="cosine", scale=8)
    goes_on = CrtSettings(method="crt", init="joint", head=head).build(0).fit(banks.train, banks.val, joint).head
    assert isinstance(goes_on, CosineHead)
    assert goes_on.offset is not None, "it has all that joint has"
    assert isinstance(CrtSettings(method="crt").build(0).fit(banks.train, banks.val, joint).head, LinearHead)
