"""What every training loss does: a sum over images that falls as the right logit grows, alike for both stages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from ltrec.errors import UserError
from ltrec.models.heads import CosineHead
from ltrec.rebalancing.methods.base import HeadTrainingSettings
from ltrec.training.losses import LossSettings
from ltrec.training.losses.class_weights import ClassWeights
from ltrec.training.mixing import MixedTargets
from tests.contracts.members import examples, through_yaml

if TYPE_CHECKING:
    from ltrec.training.losses.module import LossModule
    from tests.conftest import Banks

COUNTS = np.array([30, 10, 2])
LOGITS = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 0, 1, 2])

each = pytest.mark.parametrize("settings", examples(LossSettings), ids=lambda settings: settings.name)


def built(settings: Any, counts: np.ndarray = COUNTS) -> LossModule:
    """The loss of logits that may be cosines times 8."""
    loss: LossModule = settings.build(counts, 8.0)
    return loss


@each
def test_yaml_round_trip(settings: Any) -> None:
    assert through_yaml(settings, LossSettings) == settings


@each
def test_the_batchs_loss_is_the_sum_of_its_images(settings: Any) -> None:
    loss = built(settings)
    whole = loss(LOGITS, LABELS)
    assert whole.shape == ()
    alone = [loss(LOGITS[i : i + 1], LABELS[i : i + 1]) for i in range(len(LABELS))]
    torch.testing.assert_close(whole, torch.stack(alone).sum())
    # In bf16 a network's logits come as bf16; the loss is computed in float32.
    assert loss(LOGITS.bfloat16(), LABELS).dtype == torch.float32


@each
def test_mixed_images_have_both_labels_by_their_shares(settings: Any) -> None:
    loss, shares = built(settings), torch.tensor([1.0, 0.0, 0.3, 0.5, 0.9, 0.25])
    mixed = loss(LOGITS, MixedTargets(LABELS, LABELS.flip(0), shares))
    own, other = (
        torch.stack([loss(LOGITS[i : i + 1], labels[i : i + 1]) for i in range(len(labels))])
        for labels in (LABELS, LABELS.flip(0))
    )
    torch.testing.assert_close(mixed, (shares * own + (1 - shares) * other).sum())


@each
def test_a_step_against_the_gradient_makes_it_smaller(settings: Any) -> None:
    loss, logits = built(settings), LOGITS.clone().requires_grad_()
    before = loss(logits, LABELS)
    before.backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert loss(logits.detach() - 0.1 * logits.grad, LABELS) < before


@each
def test_class_weights_multiply_the_loss_of_each_label(settings: Any) -> None:
    # β near 1 weighs as 1 / n_j: 30 images of weight w/30, 10 of w/10 and 2 of w/2 are 42 in all, so w = 14.
    weights, others = torch.tensor([14 / 30, 14 / 10, 14 / 2]), LABELS.flip(0)
    weighted = built(settings.model_copy(update={"class_weights": ClassWeights(beta=1 - 1e-9)}))
    each_image = torch.stack([built(settings)(LOGITS[i : i + 1], LABELS[i : i + 1]) for i in range(6)])
    each_other = torch.stack([built(settings)(LOGITS[i : i + 1], others[i : i + 1]) for i in range(6)])
    torch.testing.assert_close(weighted(LOGITS, LABELS), (weights[LABELS] * each_image).sum())
    mixed = weighted(LOGITS, MixedTargets(LABELS, others, torch.full((6,), 0.3)))
    torch.testing.assert_close(mixed, (0.3 * weights[LABELS] * each_image + 0.7 * weights[others] * each_other).sum())
    with pytest.raises(UserError, match="class 1 has no training image"):
        built(settings.model_copy(update={"class_weights": ClassWeights()}), np.array([30, 0, 2]))


@each
def test_logits_far_apart_have_gradients(settings: Any) -> None:
    logits = torch.tensor([[500.0, 0.0, -500.0]] * 3, requires_grad=True)
    loss = built(settings)(logits, LABELS[:3])
    loss.backward()
    assert logits.grad is not None
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


@each
def test_its_constants_move_with_it(settings: Any) -> None:
    moved = built(settings).to("meta")
    assert all(buffer.device.type == "meta" for buffer in moved.buffers())
    assert not list(moved.parameters())


@each
def test_a_class_without_images_is_refused_or_needs_nothing(settings: Any) -> None:
    try:
        loss = built(settings, np.array([30, 0, 2]))
    except UserError as error:
        assert "class 1 has no training image" in str(error)  # noqa: PT017
    else:
        assert torch.isfinite(loss(LOGITS, LABELS))


@each
def test_a_head_learns_by_it(settings: Any, banks: Banks) -> None:
    sampler = {"name": "instance_balanced"}
    given = {"loss": settings.model_dump(), "sampler": sampler, "epochs": 4, "batch_size": 8, "lr": 0.1}
    of_cosines = CosineHead(banks.joint.weight.detach().clone(), 8.0)
    head = of_cosines if settings.of_cosines else banks.joint.duplicate()
    _, curve = HeadTrainingSettings.model_validate(given).trainer(0).fit(head, banks.train, banks.val)
    assert curve[-1]["loss"] < curve[0]["loss"]


@each
def test_a_head_that_is_trained_by_it_says_which_prior_it_answers_for(settings: Any, banks: Banks) -> None:
    given = {"loss": settings.model_dump(), "sampler": {"name": "instance_balanced"}, "epochs": 1, "batch_size": 8}
    head = CosineHead(banks.joint.weight.detach().clone(), 8.0) if settings.of_cosines else banks.joint.duplicate()
    HeadTrainingSettings.model_validate(given).trainer(0).fit(head, banks.train, banks.val)
    # Plain training learns the prior of train; a loss with τ = 1 takes it out.
    power = settings.corrected_power(np.bincount(banks.train.labels.numpy()))
    assert head.prior_power == 1 - power
    assert (power != 0) is (settings.corrects_prior or settings.class_weights is not None)
