"""What every optimizer and every schedule does."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from ltrec.models.freezing import FreezeSettings
from ltrec.training.optim import OptimizerSettings, ScheduleSettings
from tests.contracts.members import examples, through_yaml

EPOCHS, STEPS = 6, 3

optimizers = pytest.mark.parametrize("settings", examples(OptimizerSettings), ids=lambda settings: settings.name)
schedules = pytest.mark.parametrize("schedule", examples(ScheduleSettings), ids=lambda schedule: schedule.name)


class Descent:
    """Of two layers towards zero."""

    def __init__(self, settings: Any, schedule: Any) -> None:
        torch.manual_seed(0)
        self.body, self.head = nn.Linear(3, 2), nn.Linear(2, 1)
        self.optimizer = settings.build(self.body, self.head)
        self.schedule = schedule.build(self.optimizer, epochs=EPOCHS, steps=STEPS)
        self.rates: list[float] = []

    def go(self, updates: int) -> None:
        for _ in range(updates):
            self.rates.append(self.optimizer.param_groups[0]["lr"])
            self.optimizer.zero_grad()
            self.loss().backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            self.schedule.step()

    def loss(self) -> torch.Tensor:
        return self.head(self.body(torch.ones(4, 3))).square().mean()

    def parts(self) -> list[Any]:
        return [self.body, self.head, self.optimizer, self.schedule]


@pytest.mark.parametrize("union", [OptimizerSettings, ScheduleSettings, FreezeSettings])
def test_yaml_round_trip(union: Any) -> None:
    for settings in examples(union):
        assert through_yaml(settings, union) == settings


@optimizers
@schedules
def test_it_descends(settings: Any, schedule: Any) -> None:
    descent = Descent(settings.model_copy(update={"lr": 0.01}), schedule)
    before = descent.loss().item()
    descent.go(EPOCHS * STEPS)
    assert descent.loss().item() < before


@optimizers
@schedules
def test_a_resume_changes_nothing(settings: Any, schedule: Any) -> None:
    whole, interrupted, resumed = (Descent(settings, schedule) for _ in range(3))
    whole.go(EPOCHS * STEPS)
    interrupted.go(7)
    for part, state in zip(resumed.parts(), interrupted.parts(), strict=True):
        part.load_state_dict(copy.deepcopy(state.state_dict()))
    resumed.go(EPOCHS * STEPS - 7)
    assert interrupted.rates + resumed.rates == whole.rates
    for part, other in zip(resumed.parts()[:2], whole.parts()[:2], strict=True):
        assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in part.state_dict().items())


@schedules
@pytest.mark.parametrize("warmup", [0, 1])
def test_the_rate_rises_in_the_warm_up_to_the_one_asked_for_and_only_falls_afterwards(
    schedule: Any, warmup: int
) -> None:
    settings = examples(OptimizerSettings)[0].model_copy(update={"lr": 0.5})
    descent = Descent(settings, schedule.model_copy(update={"warmup_epochs": warmup}))
    descent.go(EPOCHS * STEPS)
    rise, rest = descent.rates[: warmup * STEPS], descent.rates[warmup * STEPS :]
    assert rise == pytest.approx([0.5 * (step + 1) / (warmup * STEPS) for step in range(warmup * STEPS)])
    assert rest[0] == 0.5
    assert rest == sorted(rest, reverse=True)
    assert rest[-1] < 0.5
