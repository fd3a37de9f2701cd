"""Learnable τ against a search by brute force."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch
from pydantic import ValidationError
from torch.testing import assert_close

from ltrec.errors import UserError
from ltrec.models.heads.linear import LinearHead, tau_normalised
from ltrec.rebalancing.feature_bank import FeatureBank
from ltrec.rebalancing.methods import learnable_tau
from ltrec.rebalancing.methods.learnable_tau import LearnableTauSettings

if TYPE_CHECKING:
    from ltrec.rebalancing.methods.base import FitResult
    from tests.conftest import Banks


def fit(banks: Banks, **settings: object) -> FitResult:
    return LearnableTauSettings.model_validate({"method": "learnable_tau", **settings}).build(0).fit(*banks)


def cross_entropy(banks: Banks, tau: float, temperature: float) -> float:
    """The mean over the classes of val of their images' mean −log p, image by image."""
    rows = banks.joint.weight.detach().double().tolist()
    losses: dict[int, list[float]] = {}
    for x, label in zip(banks.val.plain.double().tolist(), banks.val.labels.tolist(), strict=True):
        logits = [
            sum(w * part for w, part in zip(row, x, strict=True)) / sum(w * w for w in row) ** (tau / 2) / temperature
            for row in rows
        ]
        losses.setdefault(label, []).append(math.log(sum(map(math.exp, logits))) - logits[label])
    return sum(sum(of) / len(of) for of in losses.values()) / len(losses)


def brute_force(banks: Banks) -> tuple[float, float]:
    """The best (τ, T) of nested grids, each ten times finer than the one before."""
    tau, log_t, step = 1.0, 0.0, 0.2
    for _ in range(4):
        grid = [(tau + step * i, log_t + step * j) for i in range(-6, 7) for j in range(-6, 7)]
        tau, log_t = min(grid, key=lambda at: cross_entropy(banks, at[0], math.exp(at[1])))
        step /= 5
    return tau, math.exp(log_t)


def test_the_minimum_that_brute_force_finds(banks: Banks) -> None:
    tau, _ = brute_force(banks)
    fitted = fit(banks)
    assert 0.1 < tau < 1.9, "inside the bounds, or they alone would be tested"
    assert fitted.chosen["tau"] == pytest.approx(tau, abs=3e-3)


def test_every_class_counts_the_same_however_many_images_it_has(banks: Banks) -> None:
    # Class 0 of val three times over: plain cross-entropy would move, its mean over the classes does not.
    again = torch.cat([torch.arange(24), torch.arange(8), torch.arange(8)])
    val = FeatureBank(banks.val.features[:, again], banks.val.labels[again], {})
    assert fit(banks._replace(val=val)).chosen["tau"] == pytest.approx(fit(banks).chosen["tau"], abs=1e-3)


def test_the_scale_of_the_features_does_not_move_tau(banks: Banks) -> None:
    wide = banks._replace(val=FeatureBank(50 * banks.val.features, banks.val.labels, {}))
    first, second = fit(banks), fit(wide)
    assert first.chosen["tau"] == pytest.approx(second.chosen["tau"], abs=1e-3)


def test_the_head_is_joint_rescaled_without_bias(banks: Banks) -> None:
    fitted = fit(banks)
    assert isinstance(fitted.head, LinearHead)
    assert fitted.head.bias is None
    assert_close(fitted.head.weight, tau_normalised(banks.joint.weight, float(fitted.chosen["tau"])))
    assert [row["tau"] for row in fitted.curve] == [fitted.chosen["tau"]]


def test_bounds_hold(banks: Banks) -> None:
    free = float(fit(banks).chosen["tau"])
    assert fit(banks, bounds=(free + 0.1, 2.0)).chosen["tau"] == pytest.approx(free + 0.1)
    assert fit(banks, bounds=(0.0, free - 0.1)).chosen["tau"] == pytest.approx(free - 0.1)
    assert fit(banks, bounds=(0.0, 0.0)).chosen["tau"] == 0.0


def test_blocks_of_images_add_up(banks: Banks, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fit(banks).chosen["tau"]
    monkeypatch.setattr(learnable_tau, "_IMAGES_AT_ONCE", 5)
    assert fit(banks).chosen["tau"] == pytest.approx(whole, abs=1e-4)


def test_val_without_a_mistake_still_gives_a_head() -> None:
    # Told apart for every τ: cross-entropy has no minimum, it falls towards T = 0.
    joint = LinearHead(torch.diag(torch.tensor([2.0, 1.0])), None)
    bank = FeatureBank(torch.tensor([[[9.0, 0.0], [0.0, 9.0]]]), torch.tensor([0, 1]), {})
    fitted = LearnableTauSettings(method="learnable_tau").build(0).fit(bank, bank, joint)
    assert 0 <= float(fitted.chosen["tau"]) <= 2
    assert fitted.curve[0]["val"] == 1.0


def test_a_class_without_val_images_weighs_nothing(banks: Banks) -> None:
    some = FeatureBank(banks.val.features[:, :16], banks.val.labels[:16], {})  # classes 0 and 1
    fitted = fit(banks._replace(val=some))
    assert 0 <= float(fitted.chosen["tau"]) <= 2


def test_weights_of_a_class_that_are_all_zero_are_refused(banks: Banks) -> None:
    joint = LinearHead(torch.diag(torch.tensor([0.0, 1.0, 1.0])) @ torch.eye(3, 5), None)
    with pytest.raises(UserError, match="the logits on val are not finite"):
        fit(banks._replace(joint=joint))


@pytest.mark.parametrize(
    ("bounds", "message"),
    [((1.0, 0.5), r"bounds must be \[smallest, largest\], got \[1.0, 0.5\]"), ((0.0, 11.0), "less than or equal to 10"),
     ((-0.1, 1.0), "greater than or equal to 0")],
)  # fmt: skip
def test_bounds_that_are_none_are_refused(bounds: tuple[float, float], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        LearnableTauSettings(method="learnable_tau", bounds=bounds)
