"""What every joint head does; and that no method takes for granted that it is linear."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F

from ltrec.errors import UserError
from ltrec.models.heads import Head, LinearHead, from_state
from ltrec.models.joint_heads import JointHeadSettings
from ltrec.rebalancing.methods import RebalancerSettings
from tests.contracts.members import examples, through_yaml

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


class Cosine(Head):
    """s·cos(w_j, x): a joint head of another kind."""

    kind = "cosine_of_a_test"

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__(*weight.shape)
        self.weight = torch.nn.Parameter(weight)

    def scores(self, features: torch.Tensor) -> torch.Tensor:
        return 8 * F.linear(F.normalize(features), F.normalize(self.weight))


@pytest.mark.parametrize("settings", examples(RebalancerSettings), ids=lambda settings: settings.method)
def test_each_method_takes_another_joint_head_or_says_that_it_cannot(settings: Any, banks: Banks) -> None:
    joint = Cosine(banks.joint.weight.detach().clone())
    before = joint.weight.detach().clone()
    try:
        head = settings.build(0).fit(banks.train, banks.val, joint).head
    except UserError as error:
        assert "linear joint head, and this one is cosine_of_a_test; allowed" in str(error)  # noqa: PT017
    else:
        assert (head.classes, head.dim) == (3, 5)
    assert torch.equal(joint.weight, before)


def test_the_joint_method_and_a_classifier_that_begins_with_it_keep_its_kind(banks: Banks) -> None:
    joint = Cosine(banks.joint.weight.detach().clone())
    by_name = {settings.method: settings for settings in examples(RebalancerSettings)}  # type: ignore[attr-defined]
    plain = by_name["joint"].build(0).fit(banks.train, banks.val, joint).head
    assert torch.equal(plain(banks.val.plain), joint(banks.val.plain))
    goes_on = by_name["crt"].model_copy(update={"init": "joint"}).build(0).fit(banks.train, banks.val, joint).head
    assert isinstance(goes_on, Cosine)
    assert isinstance(by_name["crt"].build(0).fit(banks.train, banks.val, joint).head, LinearHead)
