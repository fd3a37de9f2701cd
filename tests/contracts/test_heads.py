"""What every kind of head does, on a head that a rebalancing method made."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING

import pytest
import torch

from ltrec.models import heads
from ltrec.models.heads import Head, LinearHead, PublishedLwsHead, UnfittedHead
from ltrec.models.joint_heads import JointHeadSettings
from ltrec.rebalancing.methods import RebalancerSettings
from tests.contracts.members import examples

if TYPE_CHECKING:
    from tests.conftest import Banks

each = pytest.mark.parametrize("kind", list(heads.KINDS))


@pytest.fixture(scope="module")
def made(banks: Banks) -> dict[str, Head]:
    """A head of each kind, as a training begins with it, a method makes it or an imported checkpoint leaves it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        begun = [settings.build(3, 5) for settings in examples(JointHeadSettings)]  # type: ignore[attr-defined]
    fitted = [settings.build(0).fit(*banks).head for settings in examples(RebalancerSettings)]  # type: ignore[attr-defined]
    imported = PublishedLwsHead(*banks.joint.cloned_parameters(), torch.tensor([0.5, 1.0, 2.0]))
    return {head.kind: head for head in (*begun, *fitted, imported)}


def test_every_head_can_be_loaded_and_comes_from_somewhere(made: dict[str, Head]) -> None:
    subclasses = {*Head.__subclasses__(), *LinearHead.__subclasses__()}
    own = {head for head in subclasses if head.__module__.startswith(heads.__name__) and hasattr(head, "kind")}
    own.remove(UnfittedHead)  # the place of a head, which gives no logits
    assert set(heads.KINDS.values()) == own
    assert set(heads.KINDS) == set(made)


@each
def test_shapes(kind: str, made: dict[str, Head]) -> None:
    head = made[kind]
    for images in (1, 7):
        assert head(torch.randn(images, head.dim)).shape == (images, 3)


@each
def test_an_image_is_classified_alone_as_in_company(kind: str, made: dict[str, Head], banks: Banks) -> None:
    together = made[kind](banks.val.plain)
    alone = torch.cat([made[kind](row[None]) for row in banks.val.plain])
    torch.testing.assert_close(alone, together)


@each
def test_rebuilt_from_its_state_and_options(kind: str, made: dict[str, Head], banks: Banks) -> None:
    head = made[kind]
    header = json.loads(json.dumps({"head": head.kind, "options": head.options()}))
    state = {name: tensor.clone() for name, tensor in head.state_dict().items()}
    rebuilt = heads.from_state(state, header, where="here")
    assert type(rebuilt) is type(head)
    assert torch.equal(rebuilt(banks.val.plain), head(banks.val.plain))


@each
def test_the_temperature_scales_the_logits(kind: str, made: dict[str, Head], banks: Banks) -> None:
    head = made[kind]
    hotter = copy.deepcopy(head)
    hotter.temperature.mul_(2)
    torch.testing.assert_close(hotter(banks.val.plain), head(banks.val.plain) / 2)
