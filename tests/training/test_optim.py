"""Optimizers and schedules by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from ltrec.errors import UserError
from ltrec.models.heads import LinearHead, NearestMeanHead
from ltrec.training import optim
from ltrec.training.optim import AdamW, CosineSchedule, Sgd, StepSchedule, cosine

NOTHING = nn.Identity()


@pytest.mark.parametrize(
    ("step", "expected"), [(0, 1.0), (2, 0.853553), (4, 0.5), (6, 0.146447), (8, 0.0), (9, 0.0)]
)  # ½(1 + cos(π/4)) = 0.853553
def test_cosine_by_hand(step: int, expected: float) -> None:
    assert cosine(step, 8) == pytest.approx(expected, abs=1e-6)


def rates(optimizer: torch.optim.Optimizer, schedule: Any, steps: int) -> list[list[float]]:
    """Learning rates of each parameter group, update after update."""
    seen = []
    for _ in range(steps):
        seen.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    return seen


def test_learning_rate_at_the_start_the_middle_and_the_end() -> None:
    optimizer = Sgd(lr=0.2).build(weights(0.0), NOTHING)
    schedule = CosineSchedule().build(optimizer, epochs=1, steps=10)
    seen = [rate for (rate,) in rates(optimizer, schedule, 10)]
    assert seen[0] == pytest.approx(0.2)
    assert seen[5] == pytest.approx(0.1)
    assert seen[9] == pytest.approx(0.2 * 0.024472, abs=1e-6)  # ½(1 + cos(0.9 π))
    assert optimizer.param_groups[0]["lr"] == 0.0
    assert seen == sorted(seen, reverse=True)


def weights(*values: float) -> nn.ParameterList:
    return nn.ParameterList(nn.Parameter(torch.tensor([value])) for value in values)


def scheduled(schedule: CosineSchedule | StepSchedule, epochs: int, steps: int) -> list[float]:
    optimizer = Sgd(lr=1.0).build(weights(0.0), weights(0.0))
    built = schedule.build(optimizer, epochs=epochs, steps=steps)
    return [rate for (rate,) in rates(optimizer, built, epochs * steps)]


def test_cosine_after_a_warm_up_by_hand() -> None:
    seen = scheduled(CosineSchedule(warmup_epochs=2), epochs=4, steps=2)
    # A quarter more each of 4 updates, then the cosine at 0, ¼, ½ and ¾ of the way.
    assert seen == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, 0.853553, 0.5, 0.146447], abs=1e-6)


def test_steps_by_hand() -> None:
    seen = scheduled(StepSchedule(milestones=[1, 3], gamma=0.1), epochs=4, steps=2)
    assert seen == pytest.approx([1, 1, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01])


def test_steps_after_a_warm_up_by_hand() -> None:
    # Milestones count from the first epoch of all.
    seen = scheduled(StepSchedule(milestones=[3], gamma=0.5, warmup_epochs=1), epochs=4, steps=2)
    assert seen == pytest.approx([0.5, 1, 1, 1, 1, 1, 0.5, 0.5])


def test_steps_are_torchs() -> None:
    optimizer = Sgd(lr=1.0).build(weights(0.0), NOTHING)
    torchs = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=[2, 5], gamma=0.3)
    expected = [rate for (rate,) in rates(optimizer, torchs, 8)]
    assert scheduled(StepSchedule(milestones=[2, 5], gamma=0.3), epochs=8, steps=1) == pytest.approx(expected)


@pytest.mark.parametrize("settings", [Sgd(lr=0.01, head_lr=0.1), AdamW(lr=0.01, head_lr=0.1)])
def test_the_head_has_its_own_learning_rate(settings: Sgd | AdamW) -> None:
    body, head = weights(1.0, 2.0), weights(3.0)
    optimizer = settings.build(body, head)
    assert [(group["lr"], group["params"]) for group in optimizer.param_groups] == [(0.01, [*body]), (0.1, [*head])]
    schedule = CosineSchedule(warmup_epochs=1).build(optimizer, epochs=3, steps=2)
    seen = rates(optimizer, schedule, 6)
    assert [top for _, top in seen] == pytest.approx([10 * rate for rate, _ in seen])
    assert seen[0] == pytest.approx([0.005, 0.05])


@pytest.mark.parametrize("settings", [Sgd(weight_decay=0.1), AdamW(weight_decay=0.1)])
def test_the_head_has_its_own_weight_decay(settings: Sgd | AdamW) -> None:
    body, head = weights(1.0, 2.0), weights(3.0)
    settings = settings.model_copy(update={"lr": 0.01, "head_weight_decay": 0.5})
    groups = settings.build(body, head).param_groups
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [(0.01, 0.1), (0.01, 0.5)]
    both = settings.model_copy(update={"head_lr": 0.2, "decay_all": False}).build(nn.Linear(2, 2), nn.Linear(2, 3))
    seen = [(tuple(group["params"][0].shape), group["lr"], group["weight_decay"]) for group in both.param_groups]
    assert seen == [((2, 2), 0.01, 0.1), ((2,), 0.01, 0.0), ((3, 2), 0.2, 0.5), ((3,), 0.2, 0.0)]


def test_the_heads_weights_are_cut_to_their_largest_norm() -> None:
    head = LinearHead(torch.tensor([[3.0, 4.0], [0.3, 0.4]]), torch.tensor([7.0, 7.0]))
    assert Sgd().constraint(head) is None
    cut = Sgd(head_max_norm=1.0).constraint(head)
    assert cut is not None
    cut()
    assert head.weight.detach().tolist() == [pytest.approx([0.6, 0.8], abs=1e-6), pytest.approx([0.3, 0.4])]
    assert head.bias is not None
    assert head.bias.tolist() == [7, 7]
    with pytest.raises(
        UserError, match="max_norm bounds the rows of W, and of this head none train; allowed here: null"
    ):
        Sgd(head_max_norm=1.0).constraint(NearestMeanHead(torch.eye(2), torch.zeros(2), "un", "cosine"))


@pytest.mark.parametrize("settings", [Sgd(), AdamW()])
def test_one_rate_is_one_group_and_what_is_frozen_is_in_none(settings: Sgd | AdamW) -> None:
    body, head = weights(1.0, 2.0), weights(3.0)
    body[0].requires_grad_(False)
    (group,) = settings.build(body, head).param_groups
    assert group["params"] == [body[1], *head]


def test_a_backbone_that_is_all_frozen_leaves_the_heads_group() -> None:
    body, head = weights(1.0), weights(3.0)
    body[0].requires_grad_(False)
    (group,) = Sgd(lr=0.01, head_lr=0.1).build(body, head).param_groups
    assert (group["params"], group["lr"]) == ([*head], 0.1)


def descended(optimizer: torch.optim.Optimizer, w: nn.Parameter) -> list[float]:
    """Two steps down 3w."""
    seen = []
    for _ in range(2):
        optimizer.zero_grad()
        (3 * w).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        seen.append(float(w.detach()))
    return seen


def test_two_steps_of_momentum_and_weight_decay_by_hand() -> None:
    (w,) = weights(1.0)
    optimizer = Sgd(lr=0.1, momentum=0.5, weight_decay=0.2).build(nn.ParameterList([w]), NOTHING)
    assert descended(optimizer, w) == pytest.approx([1 - 0.1 * (3 + 0.2), 0.68 - 0.1 * (0.5 * 3.2 + 3 + 0.2 * 0.68)])
    (w,) = weights(1.0)
    optimizer = Sgd(lr=0.1, momentum=0.5, weight_decay=0.2).build(nn.ParameterList([w]), NOTHING)
    assert descended(optimizer, w) == pytest.approx([0.68, 0.2064])


def test_two_steps_of_nesterov_by_hand() -> None:
    (w,) = weights(1.0)
    optimizer = Sgd(lr=0.1, momentum=0.5, nesterov=True, weight_decay=0.0).build(nn.ParameterList([w]), NOTHING)
    # Velocity 3, then 0.5·3 + 3 = 4.5; a step is gradient + 0.5·velocity.
    assert descended(optimizer, w) == pytest.approx([1 - 0.1 * (3 + 1.5), 0.55 - 0.1 * (3 + 2.25)])


def test_two_steps_of_adamw_by_hand() -> None:
    (w,) = weights(1.0)
    optimizer = AdamW(lr=0.1, betas=(0.9, 0.99), weight_decay=0.5).build(nn.ParameterList([w]), NOTHING)
    # The gradient stays 3, so both corrected means are 3 and 9: each step is 0.1·3/√9, after a decay of 0.1·0.5.
    first = 1 * 0.95 - 0.1
    assert descended(optimizer, w) == pytest.approx([first, first * 0.95 - 0.1], abs=1e-6)
    (w,) = weights(1.0)
    slow = AdamW(lr=0.1, betas=(0.5, 0.99), weight_decay=0.0).build(nn.ParameterList([w]), NOTHING)
    descended(slow, w)
    before = float(w.detach())
    slow.zero_grad()
    (-6 * w).sum().backward()  # type: ignore[no-untyped-call]
    slow.step()
    # Mean of 3, 3, −6 with shares ⅛, ¼, ½ over ⅞; mean square of 9, 9, 36 likewise with 0.99.
    mean = (3 / 8 + 3 / 4 - 6 / 2) / (7 / 8)
    square = (0.01 * (0.99**2 * 9 + 0.99 * 9 + 36)) / (1 - 0.99**3)
    assert float(w.detach()) == pytest.approx(before - 0.1 * mean / math.sqrt(square), abs=1e-6)


def test_settings_that_cannot_be_meant() -> None:
    with pytest.raises(ValidationError, match="nesterov needs a momentum above 0, got 0"):
        Sgd(nesterov=True, momentum=0.0)
    with pytest.raises(ValidationError, match=r"milestones must rise, got \[3, 3\]"):
        StepSchedule(milestones=[3, 3])
    with pytest.raises(ValueError, match=r"has a milestone at 5; all must be below epochs \(5\)"):
        StepSchedule(milestones=[3, 5]).check(5)
    with pytest.raises(ValueError, match=r"warms up for 5 epochs; warmup_epochs must be below epochs \(5\)"):
        CosineSchedule(warmup_epochs=5).check(5)
    with pytest.raises(ValidationError, match=r"milestones must come after the warm-up \(3 epochs\), got \[3, 4\]"):
        StepSchedule(milestones=[3, 4], warmup_epochs=3)
    CosineSchedule(warmup_epochs=4).check(5)


@pytest.mark.parametrize("settings", [Sgd(lr=0.1), AdamW(lr=0.1)])
def test_an_update_that_fp16_skips_leaves_nothing_behind(
    settings: Sgd | AdamW, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optim, "_on_gpu", lambda _parameters: True)
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    torch.use_deterministic_algorithms(True)  # NaN in all that is made without content
    try:
        weight = nn.Parameter(torch.ones(2))
        optimizer, scaler = settings.build(nn.ParameterList([weight]), NOTHING), torch.amp.GradScaler("cpu")
        for gradient in (float("inf"), 1.0):
            optimizer.zero_grad()
            scaler.scale((weight * gradient).sum()).backward()
            scaler.step(optimizer)
            scaler.update()
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.allclose(weight.detach(), torch.full((2,), 0.9), atol=0.01)


def vit() -> nn.Module:
    """A transformer of two blocks."""
    from torchvision.models import VisionTransformer

    backbone = VisionTransformer(16, 8, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=8)
    backbone.heads = nn.Identity()
    return backbone


def rates_by_name(optimizer: torch.optim.Optimizer, **modules: nn.Module) -> dict[str, tuple[float, float]]:
    """Learning rate and weight decay of each parameter."""
    names = {id(p): f"{part}.{name}" for part, module in modules.items() for name, p in module.named_parameters()}
    return {
        names[id(parameter)]: (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }


@pytest.mark.parametrize("kind", [Sgd, AdamW])
def test_layer_wise_decay_by_hand(kind: type[Sgd | AdamW]) -> None:
    backbone, head = vit(), nn.Linear(8, 2)
    optimizer = kind(lr=0.8, layer_decay=0.5, weight_decay=0.1).build(backbone, head)
    found = rates_by_name(optimizer, backbone=backbone, head=head)
    assert len(found) == len([*backbone.parameters(), *head.parameters()])
    expected = {
        "head.weight": 0.8,  # depth 0, with the norm behind the last block
        "backbone.encoder.ln.weight": 0.8,
        "backbone.encoder.layers.encoder_layer_1.mlp.0.weight": 0.4,
        "backbone.encoder.layers.encoder_layer_0.mlp.0.weight": 0.2,
        "backbone.encoder.pos_embedding": 0.1,
        "backbone.conv_proj.weight": 0.1,
        "backbone.class_token": 0.1,
    }
    assert {name: found[name] for name in expected} == {
        name: (pytest.approx(rate), 0.1) for name, rate in expected.items()
    }
    assert optimizer.param_groups[0]["lr"] == 0.8, "what the history shows"


def test_layer_wise_decay_leaves_the_heads_own_rate() -> None:
    backbone, head = vit(), nn.Linear(8, 2)
    found = rates_by_name(
        AdamW(lr=0.8, head_lr=3.0, layer_decay=0.5).build(backbone, head), backbone=backbone, head=head
    )
    assert found["head.bias"][0] == 3.0
    assert found["backbone.encoder.ln.bias"][0] == 0.8


def test_weight_decay_spares_what_is_no_matrix() -> None:
    backbone, head = vit(), nn.Linear(8, 2)
    settings = AdamW(lr=0.8, weight_decay=0.05, decay_all=False)
    found = rates_by_name(settings.build(backbone, head), backbone=backbone, head=head)
    shrunk = {name for name, (_, decay) in found.items() if decay}
    blocks = {
        f"backbone.encoder.layers.encoder_layer_{block}.{name}"
        for block in range(2)
        for name in ("self_attention.in_proj_weight", "self_attention.out_proj.weight", "mlp.0.weight", "mlp.3.weight")
    }
    assert shrunk == {"backbone.conv_proj.weight", "head.weight"} | blocks
    assert {decay for _, decay in found.values()} == {0.0, 0.05}
    assert {rate for rate, _ in found.values()} == {0.8}


def test_weight_decay_spares_embeddings() -> None:
    body, head = nn.Embedding(3, 2), nn.Linear(2, 1)
    found = rates_by_name(AdamW(decay_all=False).build(body, head), body=body, head=head)
    assert {name for name, (_, decay) in found.items() if decay} == {"head.weight"}
