"""The training loop: repeatable, resumable bit by bit, and stopped by a loss that is not finite."""

from __future__ import annotations

import contextlib
import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn

from ltrec.errors import UserError
from ltrec.optim import AdamW, CosineSchedule, Sgd, StepSchedule
from ltrec.training import EpochReport, autocast, moving_average, predict_features, predict_logits, train

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Batch = tuple[torch.Tensor, torch.Tensor]

IMAGES = torch.rand(12, 4, 4, 3, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(12) % 3
EPOCHS, BATCH = 6, 4


class Small(nn.Module):
    """With what makes repeating hard: dropout and batch-norm statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(48, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 3))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.body(images)
        return logits


def batches(epoch: int) -> list[Batch]:
    order = np.random.default_rng(epoch).permutation(12)
    return [(IMAGES[order[i : i + BATCH]], LABELS[order[i : i + BATCH]]) for i in range(0, 12, BATCH)]


class Run:
    """A training from the start, or from a state of another."""

    def __init__(self, state: dict[str, Any] | None = None) -> None:
        torch.manual_seed(0)
        self.network = Small()
        self.optimizer = Sgd(lr=0.2).build(self.network.parameters(), [])
        self.schedule = CosineSchedule().build(self.optimizer, epochs=1, steps=EPOCHS * 3)
        self.reports: list[EpochReport] = []
        self.done = 0
        if state is not None:
            self.done = state["done"]
            for name in ("network", "optimizer", "schedule"):
                getattr(self, name).load_state_dict(state[name])

    def train(self, on_epoch: Callable[[], None] = lambda: None, *, seed: int = 0) -> dict[str, Any]:
        def finished(report: EpochReport) -> None:
            self.reports.append(report)
            self.done += 1
            on_epoch()

        train(
            self.network, batches, self.optimizer, self.schedule,
            epochs=range(self.done, EPOCHS), seed=seed, on_epoch=finished,
        )  # fmt: skip
        return self.state()

    def state(self) -> dict[str, Any]:
        parts = ("network", "optimizer", "schedule")
        return {"done": self.done} | {name: copy.deepcopy(getattr(self, name).state_dict()) for name in parts}


def same(first: object, second: object) -> bool:
    if isinstance(first, torch.Tensor):
        return isinstance(second, torch.Tensor) and torch.equal(first, second)
    if isinstance(first, dict):
        return (
            isinstance(second, dict) and first.keys() == second.keys() and all(same(first[k], second[k]) for k in first)
        )
    if isinstance(first, list):
        return isinstance(second, list) and len(first) == len(second) and all(map(same, first, second))
    return first == second


def test_twice_the_same_bits() -> None:
    first, second = Run(), Run()
    assert same(first.train(), second.train())
    assert first.reports == second.reports
    assert not same(first.state()["network"], Run().train(seed=1)["network"]), "dropout draws from the seed"


@pytest.mark.parametrize("after", [1, 3, 5])
def test_a_resume_ends_with_the_bits_of_an_uninterrupted_run(after: int) -> None:
    whole = Run()
    expected = whole.train()
    saved: list[dict[str, Any]] = []
    interrupted = Run()

    def interrupt() -> None:
        saved.append(interrupted.state())
        if interrupted.done == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted.train(interrupt)
    torch.rand(17)  # another process has drawn other numbers
    resumed = Run(saved[-1])
    assert same(resumed.train(), expected)
    assert interrupted.reports + resumed.reports == whole.reports


class Everything:
    """A training with each option at once, from the start, or from a state of another."""

    def __init__(self, optimizer: Sgd | AdamW, schedule: CosineSchedule | StepSchedule) -> None:
        torch.manual_seed(0)
        network = Small()
        for parameter in network.body[1].parameters():
            parameter.requires_grad_(False)
        built = optimizer.build(network.body[:3].parameters(), network.body[3:].parameters())
        self.parts: dict[str, Any] = {
            "network": network,
            "optimizer": built,
            "schedule": schedule.build(built, epochs=EPOCHS, steps=3),
            "average": moving_average(network, 0.8),
        }

    def run(self, epochs: range) -> dict[str, Any]:
        train(
            self.parts["network"], batches, self.parts["optimizer"], self.parts["schedule"],
            epochs=epochs, seed=0, on_epoch=lambda _report: None,
            clip_norm=0.5, label_smoothing=0.1, average=self.parts["average"],
        )  # fmt: skip
        return {name: copy.deepcopy(part.state_dict()) for name, part in self.parts.items()}


@pytest.mark.parametrize("schedule", [CosineSchedule(warmup_epochs=2), StepSchedule(milestones=[3], warmup_epochs=1)])
@pytest.mark.parametrize("optimizer", [Sgd(lr=0.1, head_lr=0.3, nesterov=True), AdamW(lr=0.01)])
@pytest.mark.parametrize("after", [1, 4])
def test_a_resume_with_every_option(
    optimizer: Sgd | AdamW, schedule: CosineSchedule | StepSchedule, after: int, tmp_path: Path
) -> None:
    expected = Everything(optimizer, schedule).run(range(EPOCHS))
    torch.save(Everything(optimizer, schedule).run(range(after)), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    resumed = Everything(optimizer, schedule)
    for name, part in resumed.parts.items():
        part.load_state_dict(state[name])
    assert same(resumed.run(range(after, EPOCHS)), expected)


class Constant(nn.Module):
    """Two logits, whatever the image."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor([2.0, 0.0]))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.logits.expand(len(images), 2)


def trained_constant(updates: int = 1, **options: Any) -> tuple[list[torch.Tensor], EpochReport]:
    """The logits after each update by one image of class 1, at a learning rate of 1; and the report."""
    network, seen = Constant(), list[torch.Tensor]()
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _step: 1.0)
    reports: list[EpochReport] = []
    if "decay" in options:
        options["average"] = moving_average(network, options.pop("decay"))

    def images(_epoch: int) -> Any:
        for _ in range(updates):
            yield torch.zeros(1, 1), torch.tensor([1])
            seen.append(network.logits.detach().clone())

    train(network, images, optimizer, schedule, epochs=range(1), seed=0, on_epoch=reports.append, **options)
    if "average" in options:
        seen.append(options["average"].module.logits.detach())
    return seen, reports[0]


def test_clipping_by_hand() -> None:
    # The gradient is softmax − target: (0.880797, −0.880797), of norm 1.245635.
    (plain,), _ = trained_constant()
    assert plain.tolist() == pytest.approx([2 - 0.880797, 0.880797], abs=1e-6)
    (clipped,), _ = trained_constant(clip_norm=0.5)
    assert clipped.tolist() == pytest.approx([2 - 0.5 / 2**0.5, 0.5 / 2**0.5], abs=1e-5)
    (within,), _ = trained_constant(clip_norm=1.25)
    assert torch.equal(within, plain)


def test_label_smoothing_by_hand() -> None:
    (after,), report = trained_constant(label_smoothing=0.2)
    # The target is (0.1, 0.9): loss 0.1·0.126928 + 0.9·2.126928, gradient (0.880797 − 0.1, 0.119203 − 0.9).
    assert report.loss == pytest.approx(1.926928, abs=1e-6)
    assert after.tolist() == pytest.approx([2 - 0.780797, 0.780797], abs=1e-6)


def test_moving_average_by_hand() -> None:
    seen, _ = trained_constant(updates=3, decay=0.75)
    first, second, third, average = seen
    # The first update begins the average, and each later one takes a quarter.
    torch.testing.assert_close(average, 0.75 * (0.75 * first + 0.25 * second) + 0.25 * third)


def test_moving_average_of_statistics_and_its_own_copy() -> None:
    run = Run()
    average = moving_average(run.network, 0.5)
    moments = []

    def epoch(number: int) -> Any:
        for batch in batches(number)[:2]:
            yield batch
            moments.append(run.network.body[2].running_mean.clone())  # type: ignore[union-attr, operator]

    train(
        run.network, epoch, run.optimizer, run.schedule,
        epochs=range(1), seed=0, on_epoch=lambda _report: None, average=average,
    )  # fmt: skip
    averaged = average.module.body[2].running_mean
    torch.testing.assert_close(averaged, (moments[0] + moments[1]) / 2)
    assert not torch.equal(average.module.body[1].weight, run.network.body[1].weight)


def test_reports_by_hand() -> None:
    given = [(torch.zeros(2, 1), torch.tensor([0, 1])), (torch.zeros(1, 1), torch.tensor([0]))]
    network = Constant()
    optimizer = Sgd(lr=1e-30).build(network.parameters(), [])
    schedule = CosineSchedule().build(optimizer, epochs=1, steps=4)
    reports: list[EpochReport] = []
    train(network, lambda _epoch: given, optimizer, schedule, epochs=range(2), seed=0, on_epoch=reports.append)
    # −log softmax: 0.126928 for label 0, 2.126928 for label 1; the mean is over images, not over batches.
    assert reports[0] == EpochReport(0, pytest.approx((2 * 0.126928 + 2.126928) / 3, abs=1e-6), 2 / 3, 1e-30, 3)
    assert (reports[1].epoch, reports[1].lr) == (1, pytest.approx(0.5e-30))


def test_a_loss_that_is_not_finite_stops_before_the_update() -> None:
    run = Run()
    before: dict[str, torch.Tensor] = {}

    def poisoned(epoch: int) -> Any:
        for step, (images, labels) in enumerate(batches(epoch)):
            if (epoch, step) == (1, 2):
                before.update({name: p.detach().clone() for name, p in run.network.named_parameters()})
                yield torch.full_like(images, float("nan")), labels
            else:
                yield images, labels

    reports: list[EpochReport] = []
    with pytest.raises(
        UserError, match=r"optimizer\.lr: the loss is nan at epoch 2, step 3; a lower lr than"
    ) as raised:
        train(run.network, poisoned, run.optimizer, run.schedule, epochs=range(EPOCHS), seed=0, on_epoch=reports.append)
    assert "\n" not in str(raised.value)
    assert [report.epoch for report in reports] == [0]
    assert before
    for name, parameter in run.network.named_parameters():
        assert torch.equal(parameter, before[name])


def test_it_trains_whatever_mode_the_network_was_in() -> None:
    run, modes = Run(), []
    run.network.eval()
    run.train(lambda: modes.append(run.network.training))
    assert modes == [True] * EPOCHS
    assert run.reports[-1].loss < run.reports[0].loss


@pytest.mark.parametrize("training", [True, False])
def test_predicting_restores_the_mode_and_changes_nothing(training: bool) -> None:
    network = Small().train(training)
    before = copy.deepcopy(network.state_dict())
    logits = predict_logits(network, batches(0))
    assert network.training is training
    assert same(dict(network.state_dict()), dict(before))
    assert logits.shape == (12, 3)
    order = np.random.default_rng(0).permutation(12)
    torch.testing.assert_close(logits, network.eval()(IMAGES[order]).detach(), atol=1e-6, rtol=1e-6)


def test_features_come_as_float32() -> None:
    class Doubling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1, dtype=torch.float64))

        def features(self, images: torch.Tensor) -> torch.Tensor:
            return 2 * self.weight * images.double()

    network: Any = Doubling()
    features = predict_features(network, torch.ones(3, 2))
    assert features.dtype == torch.float32
    assert torch.equal(features, torch.full((3, 2), 2.0))
    assert not features.requires_grad


def test_emulated_bfloat16_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    # Before Ampere a GPU only emulates it, slower than float32.
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert isinstance(autocast(torch.device("cuda")), contextlib.nullcontext)
