"""What every training loss does: a sum over images that falls as the right logit grows, alike for both stages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from ltrec.errors import UserError
from ltrec.rebalancing.head_training import HeadTrainingSettings
from ltrec.training.losses import LossSettings
from ltrec.training.mixing import MixedTargets
from tests.contracts.members import examples, through_yaml

if TYPE_CHECKING:
    from tests.conftest import Banks

COUNTS = np.array([30, 10, 2])
LOGITS = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 0, 1, 2])

each = pytest.mark.parametrize("settings", examples(LossSettings), ids=lambda settings: settings.name)


@each
def test_yaml_round_trip(settings: Any) -> None:
    assert through_yaml(settings, LossSettings) == settings


@each
def test_the_batchs_loss_is_the_sum_of_its_images(settings: Any) -> None:
    loss = settings.build(COUNTS)
    whole = loss(LOGITS, LABELS)
    assert whole.shape == ()
    alone = [loss(LOGITS[i : i + 1], LABELS[i : i + 1]) for i in range(len(LABELS))]
    torch.testing.assert_close(whole, torch.stack(alone).sum())
    # In bf16 a network's logits come as bf16; the loss is computed in float32.
    assert loss(LOGITS.bfloat16(), LABELS).dtype == torch.float32


@each
def test_mixed_images_have_both_labels_by_their_shares(settings: Any) -> None:
    loss, shares = settings.build(COUNTS), torch.tensor([1.0, 0.0, 0.3, 0.5, 0.9, 0.25])
    mixed = loss(LOGITS, MixedTargets(LABELS, LABELS.flip(0), shares))
    own, other = (
        torch.stack([loss(LOGITS[i : i + 1], labels[i : i + 1]) for i in range(len(labels))])
        for labels in (LABELS, LABELS.flip(0))
    )
    torch.testing.assert_close(mixed, (shares * own + (1 - shares) * other).sum())


@each
def test_a_step_against_the_gradient_makes_it_smaller(settings: Any) -> None:
    loss, logits = settings.build(COUNTS), LOGITS.clone().requires_grad_()
    before = loss(logits, LABELS)
    before.backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert loss(logits.detach() - 0.1 * logits.grad, LABELS) < before


@each
def test_its_constants_move_with_it(settings: Any) -> None:
    moved = settings.build(COUNTS).to("meta")
    assert all(buffer.device.type == "meta" for buffer in moved.buffers())
    assert not list(moved.parameters())


@each
def test_a_class_without_images_is_refused_or_needs_nothing(settings: Any) -> None:
    try:
        loss = settings.build(np.array([30, 0, 2]))
    except UserError as error:
        assert "class 1 has no training image" in str(error)  # noqa: PT017
    else:
        assert torch.isfinite(loss(LOGITS, LABELS))


@each
def test_a_head_learns_by_it(settings: Any, banks: Banks) -> None:
    sampler = {"name": "instance_balanced"}
    given = {"loss": settings.model_dump(), "sampler": sampler, "epochs": 4, "batch_size": 8, "lr": 0.1}
    head = banks.joint.duplicate()
    _, curve = HeadTrainingSettings.model_validate(given).trainer(0).fit(head, banks.train, banks.val)
    assert curve[-1]["loss"] < curve[0]["loss"]


@each
def test_a_head_that_is_trained_by_it_says_which_prior_it_answers_for(settings: Any, banks: Banks) -> None:
    given = {"loss": settings.model_dump(), "sampler": {"name": "instance_balanced"}, "epochs": 1, "batch_size": 8}
    head = banks.joint.duplicate()
    HeadTrainingSettings.model_validate(given).trainer(0).fit(head, banks.train, banks.val)
    # Plain training learns the prior of train; a loss with τ = 1 takes it out.
    assert head.prior_power == 1 - settings.corrected_power
    assert (settings.corrected_power != 0) is settings.corrects_prior
