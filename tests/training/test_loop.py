"""The training loop: repeatable, resumable bit by bit, and stopped by a loss that is not finite."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn

from ltrec.errors import UserError
from ltrec.training import loop as training
from ltrec.training import step as stepping
from ltrec.training.loop import EpochReport, moving_average, train, validate
from ltrec.training.losses.class_weights import ClassWeights
from ltrec.training.losses.cross_entropy import CrossEntropy
from ltrec.training.mixing import Blended, MixedTargets
from ltrec.training.optim import AdamW, CosineSchedule, Sgd, StepSchedule
from ltrec.training.step import ComputeConfig, Gradients
from tests.scores import balanced_accuracy

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ltrec.compute.precision import Precision
    from ltrec.training.losses.module import LossModule

    Batch = tuple[torch.Tensor, torch.Tensor]

IMAGES = torch.rand(12, 4, 4, 3, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(12) % 3
EPOCHS, BATCH = 6, 4
COUNTS = np.array([4, 4, 4])
LOSS, SMOOTHED = CrossEntropy().build(COUNTS), CrossEntropy(label_smoothing=0.1).build(COUNTS)


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

    def __init__(self, state: dict[str, Any] | None = None, network: nn.Module | None = None, **options: Any) -> None:
        torch.manual_seed(0)
        self.network = network or Small()
        self.loss = options.pop("loss", LOSS)
        self.options = options
        self.optimizer = Sgd(lr=0.2).build(self.network, nn.Identity())
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
            self.network, self.loss, batches, self.optimizer, self.schedule,
            epochs=range(self.done, EPOCHS), batch_size=BATCH, seed=seed, on_epoch=finished, **self.options,
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


@pytest.mark.parametrize("after", [1, 3, 4])
def test_a_resume_weighs_classes_as_an_uninterrupted_run(after: int) -> None:
    # Weights count from epoch 3 of 6 on: resumed before, there and after.
    def loss() -> LossModule:
        weights = ClassWeights(beta=0.9, start=0.5)
        return CrossEntropy(class_weights=weights).build(np.array([30, 4, 2]))

    whole, interrupted = Run(loss=loss()), Run(loss=loss())
    expected = whole.train()
    saved: list[dict[str, Any]] = []

    def interrupt() -> None:
        saved.append(interrupted.state())
        if interrupted.done == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted.train(interrupt)
    resumed = Run(saved[-1], loss=loss())
    assert same(resumed.train(), expected)
    assert interrupted.reports + resumed.reports == whole.reports
    plain = Run()
    plain.train()
    assert plain.reports[:3] == whole.reports[:3]
    assert plain.reports[3].loss != whole.reports[3].loss


class Everything:
    """A training with each option at once, from the start, or from a state of another."""

    def __init__(self, optimizer: Sgd | AdamW, schedule: CosineSchedule | StepSchedule) -> None:
        torch.manual_seed(0)
        network = Small()
        for parameter in network.body[1].parameters():
            parameter.requires_grad_(False)
        built = optimizer.build(network.body[:3], network.body[3:])
        self.parts: dict[str, Any] = {
            "network": network,
            "optimizer": built,
            "schedule": schedule.build(built, epochs=EPOCHS, steps=3),
            "average": moving_average(network, 0.8),
        }

    def run(self, epochs: range) -> dict[str, Any]:
        train(
            self.parts["network"], SMOOTHED, batches, self.parts["optimizer"], self.parts["schedule"],
            epochs=epochs, batch_size=BATCH, seed=0, on_epoch=lambda _report: None,
            clip_norm=0.5, sam_rho=0.05, mix=Blended(0.4), average=self.parts["average"],
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

    train(
        network, options.pop("loss", LOSS), images, optimizer, schedule,
        epochs=range(1), batch_size=1, seed=0, on_epoch=reports.append, **options,
    )  # fmt: skip
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


def test_sharpness_aware_minimisation_by_hand() -> None:
    # Uphill by ρ along (1, −1)/√2 the logits are (2.353553, −0.353553), and softmax − target is (0.937445, −0.937445).
    (after,), report = trained_constant(sam_rho=0.5)
    assert after.tolist() == pytest.approx([2 - 0.937445, 0.937445], abs=1e-6)
    assert report.loss == pytest.approx(2.126928, abs=1e-6), "that of the weights, not of those uphill"


def test_what_is_allowed_is_seen_to_after_each_update() -> None:
    network = Constant()
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _step: 1.0)
    average = moving_average(network, 0.0)
    train(
        network, LOSS, lambda _epoch: [(torch.zeros(1, 1), torch.tensor([1]))], optimizer, schedule,
        epochs=range(2), batch_size=1, seed=0, on_epoch=lambda _report: None,
        constrain=lambda: network.logits.data.clamp_(max=0.25), average=average,
    )  # fmt: skip
    # (2, 0) → (1.119203, 0.880797) → ¼ each, from where class 1 gains ½ and is cut again.
    assert network.logits.tolist() == pytest.approx([0.25 - 0.5, 0.25])
    assert average.module.logits.tolist() == network.logits.tolist(), "the average is of weights that are allowed"


def test_label_smoothing_by_hand() -> None:
    (after,), report = trained_constant(loss=CrossEntropy(label_smoothing=0.2).build(COUNTS[:2]))
    # The target is (0.1, 0.9): loss 0.1·0.126928 + 0.9·2.126928, gradient (0.880797 − 0.1, 0.119203 − 0.9).
    assert report.loss == pytest.approx(1.926928, abs=1e-6)
    assert after.tolist() == pytest.approx([2 - 0.780797, 0.780797], abs=1e-6)


def test_blended_targets_by_hand() -> None:
    network = Constant()
    gradients = Gradients(network, LOSS, 2, ComputeConfig())
    labels = torch.tensor([1, 0])
    loss, hits = gradients.accumulate(
        torch.zeros(2, 1), MixedTargets(labels, labels.flip(0), torch.tensor([0.75, 0.6]))
    )
    # Targets (0.25, 0.75) and (0.6, 0.4): their mean is (0.425, 0.575), and class 0 wins for both images.
    assert float(loss) == pytest.approx(2 * (0.425 * 0.126928 + 0.575 * 2.126928), abs=1e-5)
    assert int(hits) == 1
    assert network.logits.grad is not None
    assert network.logits.grad.tolist() == pytest.approx([0.880797 - 0.425, 0.119203 - 0.575], abs=1e-6)


def test_moving_average_by_hand() -> None:
    # The first update begins the average; the next ones leave min(d, 2/11) and min(d, 3/12) of it.
    for decay, shares in ((0.999, (9 / 11, 9 / 12)), (0.2, (9 / 11, 0.8))):
        (first, second, third, average), _ = trained_constant(updates=3, decay=decay)
        expected = torch.lerp(torch.lerp(first, second, shares[0]), third, shares[1])
        torch.testing.assert_close(average, expected)


def test_moving_average_of_statistics_and_its_own_copy() -> None:
    run = Run()
    average = moving_average(run.network, 0.5)
    moments = []

    def epoch(number: int) -> Any:
        for batch in batches(number)[:2]:
            yield batch
            moments.append(run.network.body[2].running_mean.clone())  # type: ignore[union-attr, operator]

    train(
        run.network, LOSS, epoch, run.optimizer, run.schedule,
        epochs=range(1), batch_size=BATCH, seed=0, on_epoch=lambda _report: None, average=average,
    )  # fmt: skip
    averaged = average.module.body[2].running_mean
    torch.testing.assert_close(averaged, torch.lerp(moments[0], moments[1], 9 / 11))
    assert not torch.equal(average.module.body[1].weight, run.network.body[1].weight)


def test_reports_by_hand() -> None:
    given = [(torch.zeros(2, 1), torch.tensor([0, 1])), (torch.zeros(1, 1), torch.tensor([0]))]
    network = Constant()
    optimizer = Sgd(lr=1e-30).build(network, nn.Identity())
    schedule = CosineSchedule().build(optimizer, epochs=1, steps=4)
    reports: list[EpochReport] = []
    train(
        network, LOSS, lambda _epoch: given, optimizer, schedule,
        epochs=range(2), batch_size=2, seed=0, on_epoch=reports.append,
    )  # fmt: skip
    # −log softmax: 0.126928 for label 0, 2.126928 for label 1; the mean is over images, not over batches.
    assert reports[0] == EpochReport(0, pytest.approx((2 * 0.126928 + 2.126928) / 3, abs=1e-6), 2 / 3, 1e-30)
    assert (reports[1].epoch, reports[1].lr) == (1, pytest.approx(0.5e-30))


def test_a_loss_that_is_not_finite_stops_the_training_and_says_where() -> None:
    run = Run()

    def poisoned(epoch: int) -> Any:
        for step, (images, labels) in enumerate(batches(epoch)):
            yield (torch.full_like(images, float("nan")) if (epoch, step) == (1, 1) else images), labels

    reports: list[EpochReport] = []
    with pytest.raises(
        UserError, match=r"optimizer\.lr: the loss is nan at epoch 2, step 2; a lower lr than"
    ) as raised:
        train(
            run.network, LOSS, poisoned, run.optimizer, run.schedule,
            epochs=range(EPOCHS), batch_size=BATCH, seed=0, on_epoch=reports.append,
        )  # fmt: skip
    assert "\n" not in str(raised.value)
    assert [report.epoch for report in reports] == [0]


def test_losses_are_fetched_some_steps_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Run()
    whole.train()
    monkeypatch.setattr(training, "_FETCH_EVERY", 2)
    often = Run()
    often.train()
    assert often.reports == whole.reports


def test_it_trains_whatever_mode_the_network_was_in() -> None:
    run, modes = Run(), []
    run.network.eval()
    run.train(lambda: modes.append(run.network.training))
    assert modes == [True] * EPOCHS
    assert run.reports[-1].loss < run.reports[0].loss


@pytest.mark.parametrize("training", [True, False])
def test_validating_restores_the_mode_and_changes_nothing(training: bool) -> None:
    network = Small().train(training)
    before = copy.deepcopy(network.state_dict())
    reached, largest = validate(network, batches(0), classes=4)
    assert network.training is training
    assert same(dict(network.state_dict()), dict(before))
    logits = network.eval()(IMAGES).detach()
    assert reached == balanced_accuracy(logits, LABELS), "of the classes that there are"
    assert largest == pytest.approx(float(logits.abs().max()))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_validating_tells_of_logits_that_are_not_finite(value: float) -> None:
    network = Constant()
    network.logits.data[1] = value
    images = torch.zeros(1, 1), torch.tensor([0])
    assert validate(network, [images], classes=2)[1] == float("inf")
    assert validate(network, [(torch.zeros(0, 1), torch.zeros(0, dtype=torch.int64)), images], classes=2)[0] in {
        0.0,
        1.0,
    }


class Plain(nn.Module):
    """Without what depends on how a batch is cut."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(48, 16), nn.ReLU(), nn.Linear(16, 3))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.body(images)
        return logits


def plain(**compute: Any) -> Run:
    torch.manual_seed(0)
    return Run(network=Plain(), compute=ComputeConfig(**compute))


@pytest.mark.parametrize("micro_batches", [2, 3, 4])
def test_micro_batches_make_the_same_update(micro_batches: int) -> None:
    whole, cut = plain(), plain(micro_batches=micro_batches)
    expected, got = whole.train()["network"], cut.train()["network"]
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-5)
    assert [report.accuracy for report in cut.reports] == [report.accuracy for report in whole.reports]
    assert [report.loss for report in cut.reports] == pytest.approx([report.loss for report in whole.reports])


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_precisions_learn_the_same(precision: Precision) -> None:
    whole, reduced = plain(), plain(precision=precision)
    weights, others = whole.train()["network"], reduced.train()["network"]
    assert {tensor.dtype for tensor in others.values()} == {torch.float32}
    assert not same(others, weights)
    assert whole.reports[-1].loss < 0.8 * whole.reports[0].loss
    assert reduced.reports[-1].loss == pytest.approx(whole.reports[-1].loss, rel=0.1)


@pytest.mark.slow
def test_a_compiled_network_learns_the_same() -> None:
    whole, compiled = plain(), plain(compiled="default")
    torch.testing.assert_close(compiled.train()["network"], whole.train()["network"], atol=1e-5, rtol=1e-4)
    assert compiled.state()["network"].keys() == whole.state()["network"].keys()


class Crowded(Plain):
    """A GPU's memory holds no more than `most` images."""

    most = 4
    error: RuntimeError = torch.OutOfMemoryError("CUDA out of memory.")

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if len(images) > self.most:
            raise self.error
        return super().forward(images)


def crowded(most: int, **compute: Any) -> Run:
    torch.manual_seed(0)
    network = Crowded()
    network.most = most
    return Run(network=network, compute=ComputeConfig(**compute))


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processor's memory is tried as a GPU's is."""
    monkeypatch.setattr(stepping, "_WITH_LITTLE_MEMORY", {"cpu"})


@pytest.mark.usefixtures("little_memory")
def test_what_does_not_fit_is_cut_if_that_is_allowed(capsys: pytest.CaptureFixture[str]) -> None:
    whole = plain().train()["network"]
    assert same(crowded(4, auto_split=True).train()["network"], whole)
    assert not capsys.readouterr().err
    torch.testing.assert_close(crowded(2, auto_split=True).train()["network"], whole, atol=1e-6, rtol=1e-5)
    assert "batches go through in 2 micro-batches of 2" in capsys.readouterr().err


@pytest.mark.usefixtures("little_memory")
def test_what_cublas_has_no_room_for_is_cut_too_and_other_errors_are_not_hidden() -> None:
    network = Crowded()
    network.most, network.error = 2, RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`")
    assert fitted(network, 4).micro_batches == 2
    network.error = RuntimeError("CUDA error: an illegal memory access was encountered")
    with pytest.raises(RuntimeError, match="illegal memory access"):
        fitted(network, 4)


def fitted(network: nn.Module, size: int) -> Gradients:
    gradients = Gradients(network, LOSS, size, ComputeConfig(auto_split=True))
    gradients.fit_memory(IMAGES[:size], LABELS[:size])
    return gradients


@pytest.mark.usefixtures("little_memory")
def test_micro_batches_are_halved_down_to_two_images() -> None:
    network = Crowded()
    network.most = 2
    assert fitted(network, 6).micro_batches == 3


class SecondPart(Crowded):
    """The gradients of the first part take the room of the second."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if len(images) > 2 and self.body[1].weight.grad is not None:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return super().forward(images)


@pytest.mark.usefixtures("little_memory")
def test_a_part_that_fits_only_alone_is_halved_again() -> None:
    assert fitted(SecondPart(), 8).micro_batches == 4


class Unstill(Small):
    """Has batch norm and dropout before there is no room any more."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits = super().forward(images)
        if len(images) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return logits


@pytest.mark.usefixtures("little_memory")
def test_trying_what_fits_leaves_no_trace() -> None:
    networks = []
    for compute in (ComputeConfig(micro_batches=2), ComputeConfig(auto_split=True)):
        torch.manual_seed(0)
        networks.append(network := Unstill())
        gradients = Gradients(network, LOSS, 4, compute)
        if compute.auto_split:
            gradients.fit_memory(IMAGES[:4], LABELS[:4])
        gradients.accumulate(IMAGES[:4], LABELS[:4])
    asked, found = networks
    assert same(dict(asked.state_dict()), dict(found.state_dict()))
    for one, other in zip(asked.parameters(), found.parameters(), strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert torch.equal(one.grad, other.grad)


def test_a_training_of_skipped_updates_alone_is_none() -> None:
    run = plain(precision="fp16")

    for parameter in run.network.parameters():
        parameter.register_hook(lambda gradient: torch.full_like(gradient, torch.inf))
    with pytest.raises(UserError, match=r"represent\.precision: in fp16 the gradients of all 18 updates overflowed"):
        run.train()
    assert len(run.reports) == EPOCHS - 1, "the last is not saved: going on fails again"


def test_a_compiler_that_fails_is_one_line() -> None:
    from torch._dynamo.exc import BackendCompilerFailed

    from ltrec.training.step import compiler_explained

    with pytest.raises(UserError, match=r"represent\.compile: torch\.compile failed \(.*no compiler") as raised:  # noqa: SIM117
        with compiler_explained("default"):
            raise BackendCompilerFailed("inductor", RuntimeError("no\ncompiler"), None)
    assert "\n" not in str(raised.value)


@pytest.mark.usefixtures("little_memory")
def test_else_what_would_fit_is_named() -> None:
    with pytest.raises(UserError, match=r"batch_size: 4 images at a time need more .*; 2 fit \(or .*accumulate: 2,"):
        crowded(2).train()
    with pytest.raises(UserError, match="does not hold two images at a time"):
        crowded(1, auto_split=True).train()
