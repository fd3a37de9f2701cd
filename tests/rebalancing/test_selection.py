"""The score that everything is chosen by."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from ltrec.errors import UserError
from ltrec.rebalancing import selection
from ltrec.rebalancing.selection import LogitBlocks, Score, ScoredLogits, choose_on_val, fit_temperature
from tests.scores import balanced_accuracy

if TYPE_CHECKING:
    from collections.abc import Iterator


def chosen(*logits: torch.Tensor, labels: torch.Tensor) -> tuple[int, list[float]]:
    """Features that are the candidates' logits side by side."""
    classes = [given.shape[1] for given in logits]
    return choose_on_val(lambda features: features.split(classes, dim=1), len(logits), torch.cat(logits, dim=1), labels)


def one_hot(*classes: int) -> torch.Tensor:
    return torch.eye(4)[list(classes)]


def test_balanced_accuracy_by_hand() -> None:
    # Class 0: 3 of 4, class 1: 0 of 1, class 3: 1 of 1; class 2 has no image and is left out.
    labels = torch.tensor([0, 0, 0, 0, 1, 3])
    assert balanced_accuracy(one_hot(0, 0, 0, 2, 0, 3), labels) == pytest.approx((3 / 4 + 0 + 1) / 3)


def test_balanced_accuracy_does_not_depend_on_how_many_images_a_class_has() -> None:
    assert balanced_accuracy(one_hot(0, 1), torch.tensor([0, 0])) == 0.5
    labels = torch.tensor([0] * 98 + [1, 1])
    assert balanced_accuracy(one_hot(*[0] * 100), labels) == 0.5


def test_calibration_finds_how_much_too_sure_the_logits_are() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(20_000, 5, generator=generator)
    labels = torch.multinomial(logits.softmax(dim=1), 1, generator=generator).squeeze(1)
    honest, nll = fit_temperature(logits, labels)
    assert honest == pytest.approx(1.0, rel=0.05)
    for factor in (3.0, 0.01, 1000.0):
        temperature, scaled_nll = fit_temperature(factor * logits, labels)
        assert temperature == pytest.approx(factor * honest, rel=1e-2)
        assert scaled_nll == pytest.approx(nll, abs=1e-4)


def test_calibration_of_logits_that_say_nothing_is_a_guess() -> None:
    temperature, nll = fit_temperature(torch.zeros(6, 3), torch.tensor([0, 1, 2, 0, 1, 2]))
    assert temperature > 0
    assert nll == pytest.approx(1.098612)  # log 3


def test_accuracy_goes_before_likelihood_and_likelihood_before_order() -> None:
    assert Score(0.9, -5.0) > Score(0.8, -0.1)
    labels = torch.tensor([0, 1])
    # Both are right on both images; the second is surer where it should be than where it should not.
    even = torch.tensor([[2.0, 1.0], [1.0, 2.0]])
    uneven = torch.tensor([[9.0, 1.0], [1.0, 1.1]])
    assert ScoredLogits(even, labels).balanced == ScoredLogits(uneven, labels).balanced == 1.0
    assert ScoredLogits(even, labels) > ScoredLogits(uneven, labels)


def test_the_best_is_the_first_of_equals_and_likelihood_is_fitted_for_ties_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fitted = []

    def counted(logits: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
        fitted.append(logits)
        return fit_temperature(logits, labels)

    monkeypatch.setattr(selection, "fit_temperature", counted)
    labels = torch.tensor([0, 1])
    wrong, right = one_hot(1, 1), one_hot(0, 1)
    assert chosen(wrong, right, wrong, labels=labels) == (1, [0.5, 1.0, 0.5])
    assert not fitted
    uneven = torch.tensor([[9.0, 1.0], [1.0, 1.1]])
    even = torch.tensor([[2.0, 1.0], [1.0, 2.0]])
    assert chosen(uneven, even, even, labels=labels) == (1, [1.0, 1.0, 1.0])
    assert len(fitted) == 3


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_candidate_of_a_logit_that_is_not_finite_is_not_chosen(bad: float) -> None:
    labels = torch.tensor([0, 1])
    assert chosen(torch.tensor([[9.0, -9.0], [bad, 9.0]]), one_hot(1, 1), labels=labels) == (1, [0.0, 0.5])


def test_candidates_are_judged_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    logits, labels = [torch.randn(50, 4, generator=generator) for _ in range(3)], torch.arange(50) % 4
    whole = chosen(*logits, labels=labels)
    monkeypatch.setattr(selection, "_IMAGES_AT_ONCE", 7)
    assert chosen(*logits, labels=labels) == whole
    assert whole[1] == [balanced_accuracy(given, labels) for given in logits]


def test_the_scale_of_the_logits_is_no_merit() -> None:
    logits = torch.randn(60, 3, generator=torch.Generator().manual_seed(3))
    labels = torch.arange(60) % 3
    assert ScoredLogits(logits, labels).log_likelihood == pytest.approx(
        ScoredLogits(50 * logits, labels).log_likelihood, abs=1e-5
    )


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_logits_that_are_not_finite_come_last_and_are_refused_alone(bad: float) -> None:
    labels = torch.tensor([0, 1])
    wrong = torch.tensor([[-9.0, 9.0], [9.0, -9.0]])
    right = torch.tensor([[9.0, -9.0], [bad, 9.0]])
    assert ScoredLogits(wrong, labels) > ScoredLogits(right, labels)
    assert not ScoredLogits(right, labels) > ScoredLogits(wrong, labels)
    with pytest.raises(UserError, match="the logits on val are not finite"):
        fit_temperature(right, labels)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("factor", [0.3, 1.0, 4.0])
def test_derivatives_of_the_likelihood_by_autograd(
    factor: float, smoothing: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "_IMAGES_AT_ONCE", 7)  # 30 images: the last block is not full
    logits = torch.randn(30, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    labels = torch.arange(30) % 4
    at = torch.tensor(factor, dtype=torch.float64, requires_grad=True)
    nll = torch.nn.functional.cross_entropy(at * logits, labels, label_smoothing=smoothing)
    (slope,) = torch.autograd.grad(nll, at, create_graph=True)
    (curvature,) = torch.autograd.grad(slope, at)
    expected = nll.item(), slope.item(), curvature.item()
    assert selection._likelihood(logits, labels, factor, smoothing) == pytest.approx(expected, rel=1e-9)


def test_logits_kept_or_computed_anew_are_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "_IMAGES_AT_ONCE", 8)
    generator = torch.Generator().manual_seed(4)
    whole, labels = torch.randn(60, 4, generator=generator), torch.arange(60) % 4
    passes: list[int] = []

    def compute() -> Iterator[torch.Tensor]:
        passes.append(1)
        yield from torch.split(whole, 16)

    fitted = [fit_temperature(whole, labels)]
    for most in (whole.nbytes, whole.nbytes - 1):
        monkeypatch.setattr(selection, "_KEPT_BYTES", most)
        passes.clear()
        blocks = LogitBlocks(compute)
        scored = ScoredLogits(blocks, labels)
        assert (scored.balanced, scored.largest) == (balanced_accuracy(whole, labels), float(whole.abs().max()))
        fitted.append(fit_temperature(blocks, labels))
        assert torch.equal(torch.cat(list(blocks)), whole)
        assert (len(passes) == 1) == (most == whole.nbytes)
    assert fitted[0] == fitted[1] == fitted[2]


def test_a_pass_that_is_not_finished_keeps_nothing() -> None:
    blocks = LogitBlocks(lambda: iter(torch.eye(4).split(1)))
    next(iter(blocks))
    assert torch.equal(torch.cat(list(blocks)), torch.eye(4))


def test_a_tie_is_broken_without_holding_the_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "_KEPT_BYTES", 0)
    labels = torch.tensor([0, 1])
    uneven, even = torch.tensor([[9.0, 1.0], [1.0, 1.1]]), torch.tensor([[2.0, 1.0], [1.0, 2.0]])
    assert chosen(uneven, even, even, labels=labels) == (1, [1.0, 1.0, 1.0])


@pytest.mark.parametrize("shift", [0.0, 1e4])
def test_the_spread_is_the_standard_deviation(shift: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "_IMAGES_AT_ONCE", 7)
    logits = torch.randn(30, 4, generator=torch.Generator().manual_seed(1)) + shift
    assert selection._spread(logits) == pytest.approx(float(logits.double().std()), rel=1e-7)
    assert selection._spread(torch.full((1, 1), 3.0)) == 0


def test_where_all_are_right_or_wrong_the_temperature_stays_within_bounds() -> None:
    labels, logits = torch.arange(4), one_hot(0, 1, 2, 3)
    sharpest, mildest = (float(logits.std()) / bound for bound in reversed(selection._SHARPNESS))
    temperature, nll = fit_temperature(logits, labels)
    assert sharpest <= temperature < 0.1
    assert nll < 1e-6
    assert fit_temperature(-logits, labels)[0] == pytest.approx(mildest, rel=1e-3)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_one_bad_value_among_many(bad: float) -> None:
    values = torch.randn(50, 3)
    assert selection.all_finite(values)
    values[17, 1] = bad
    assert not selection.all_finite(values)
