"""What every policy and every erasing does: an image's own draw says everything, and the pixels stay pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from ltrec.data.images.augmentation import AugmentSettings, NoCrop
from ltrec.data.images.erasing import EraseSettings
from ltrec.data.images.policies import PolicySettings
from tests.contracts.members import examples, through_yaml

if TYPE_CHECKING:
    from ltrec.data.images.augmentation import Augment

IMAGES = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3)).astype(np.uint8))
MEMBERS = [("policy", PolicySettings, member) for member in examples(PolicySettings)]
MEMBERS += [("erase", EraseSettings, member) for member in examples(EraseSettings)]

each = pytest.mark.parametrize(("field", "union", "member"), MEMBERS, ids=[member.name for _, _, member in MEMBERS])  # type: ignore[attr-defined]


def built(field: str, member: Any, **options: Any) -> Augment:
    settings = AugmentSettings(crop=NoCrop(), flip=False, **{field: member}, **options)
    return settings.build((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


@each
def test_yaml_round_trip(field: str, union: Any, member: Any) -> None:
    assert through_yaml(member, union) == member
    given = AugmentSettings(**{field: member})
    assert AugmentSettings.model_validate_json(given.model_dump_json()) == given


@each
def test_draws_say_everything_whatever_the_company(field: str, union: Any, member: Any) -> None:  # noqa: ARG001
    augment = built(field, member)
    draws = torch.rand(40, augment.draws, generator=torch.Generator().manual_seed(0))
    kept = IMAGES.clone()
    torch.manual_seed(1)
    changed = augment(IMAGES, draws)
    torch.manual_seed(2)
    shares = [augment(IMAGES[rank::3], draws[rank::3]) for rank in range(3)]
    assert changed.dtype == torch.uint8
    assert changed.shape == IMAGES.shape
    assert all(torch.equal(share, changed[rank::3]) for rank, share in enumerate(shares))
    assert torch.equal(IMAGES, kept), "squares that stay in memory are left alone"
    assert sum(not torch.equal(one, other) for one, other in zip(changed, IMAGES, strict=True)) > 10


@each
def test_it_goes_with_jitter(field: str, union: Any, member: Any) -> None:  # noqa: ARG001
    augment = built(field, member, jitter=0.4)
    changed = augment(IMAGES, torch.rand(40, augment.draws))
    assert changed.dtype == torch.float32
    assert changed.min() >= 0
    assert changed.max() <= 255
