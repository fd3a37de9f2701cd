"""Ensembles: pools by hand, weights against a slow search, members as their own variants would fit them."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest
import torch
from pydantic import ValidationError
from torch.testing import assert_close

from ltrec.models.heads import EnsembleHead, Head, KnnHead, LinearHead
from ltrec.rebalancing.adjusting import calibrated
from ltrec.rebalancing.feature_bank import FeatureBank
from ltrec.rebalancing.methods.ensemble import EnsembleSettings, fit_weights, pool_likelihood
from ltrec.rebalancing.methods.ridge import RidgeSettings
from ltrec.rebalancing.selection import LogitBlocks
from tests.scores import balanced_accuracy

if TYPE_CHECKING:
    from ltrec.rebalancing.methods.base import FitResult
    from tests.conftest import Banks

MEMBERS: dict[str, Any] = {"ridge": {"method": "ridge"}, "knn": {"method": "knn"}, "joint": {"method": "joint"}}


def settings(**changes: Any) -> EnsembleSettings:
    return EnsembleSettings.model_validate({"method": "ensemble", "members": MEMBERS, **changes})


def fit(banks: Banks, **changes: Any) -> FitResult:
    return settings(**changes).build(0).fit(*banks)


def weights_of(fitted: FitResult) -> dict[str, float]:
    return {name: float(fitted.chosen[f"{name}.weight"]) for name in MEMBERS if f"{name}.weight" in fitted.chosen}


def blurred(banks: Banks, noise: float, seed: int = 0) -> LinearHead:
    """The joint head with some noise in its weights."""
    weight, bias = banks.joint.cloned_parameters()
    drawn = torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed))
    return LinearHead(weight + noise * drawn, bias)


def test_members_are_what_their_own_variants_would_be(banks: Banks) -> None:
    fitted = fit(banks, weights="equal")
    assert isinstance(fitted.head, EnsembleHead)
    alone = RidgeSettings(method="ridge").build(0).fit(*banks)
    head, chosen = calibrated(alone.head, banks.train.labels, banks.val, adjust=False)
    assert torch.equal(fitted.head.heads[0](banks.val.plain), head(banks.val.plain))
    assert fitted.chosen["ridge.lambda"] == alone.chosen["lambda"]
    assert fitted.chosen["ridge.temperature"] == chosen["temperature"] != 1


def test_equal_weights_are_the_mean_of_the_log_probabilities(banks: Banks) -> None:
    fitted = fit(banks, weights="equal")
    assert isinstance(fitted.head, EnsembleHead)
    means = sum(head(banks.val.plain).log_softmax(dim=1) for head in fitted.head.heads) / 3
    assert_close(fitted.head(banks.val.plain), means)
    assert weights_of(fitted) == dict.fromkeys(MEMBERS, 1 / 3)


def test_a_member_is_adjusted_as_its_variant_would_be(banks: Banks) -> None:
    fitted = fit(banks, members={**MEMBERS, "ridge": {"method": "ridge", "adjust": True}})
    assert "ridge.prior" in fitted.chosen
    assert "knn.prior" not in fitted.chosen


def test_the_slopes_are_those_of_the_likelihood(banks: Banks) -> None:
    # By differences of ±10⁻³ in float64; blocks of unequal size, and classes of 8, 8 and 1 images.
    log_p = torch.stack(
        [blurred(banks, 0.5, seed)(banks.val.plain).detach().double().log_softmax(1) for seed in (1, 2)], 1
    )
    rows = torch.arange(17)
    blocks, labels = LogitBlocks(lambda: torch.split(log_p[rows], 7)), banks.val.labels[rows]
    v = torch.tensor([0.7, 0.2], dtype=torch.float64)
    nll, slopes = pool_likelihood(blocks, labels, v, 0.1)
    by_hand = 0.0
    for image, label in zip(log_p[rows], labels.tolist(), strict=True):
        target = 0.1 / 3 * torch.ones(3, dtype=torch.float64)
        target[label] += 0.9
        weight = 1 / (3 * int((labels == label).sum()))
        by_hand -= weight * float(target @ (v @ image).log_softmax(0))
    assert nll == pytest.approx(by_hand)
    for index, step in enumerate(1e-3 * torch.eye(2, dtype=torch.float64)):
        rise = pool_likelihood(blocks, labels, v + step, 0.1)[0] - pool_likelihood(blocks, labels, v - step, 0.1)[0]
        assert rise / 2e-3 == pytest.approx(float(slopes[index]), rel=1e-4)


def test_fitted_weights_are_those_of_a_slow_search(banks: Banks) -> None:
    heads: list[Head] = [blurred(banks, 0.6, seed) for seed in (1, 2)]
    weights = fit_weights(heads, banks.val)
    log_p = torch.stack([head(banks.val.plain).detach().double().log_softmax(dim=1) for head in heads])

    def objective(v: tuple[float, float]) -> float:
        # Each of the three classes has 8 images, so that all images count the same.
        log_pool = torch.einsum("m,mnc->nc", torch.tensor(v, dtype=torch.float64), log_p).log_softmax(dim=1)
        smoothing = 0.1 / 24.1
        own = log_pool.gather(1, banks.val.labels[:, None])[:, 0]
        nll = -((1 - smoothing) * own + smoothing * log_pool.mean(dim=1)).mean()
        return float(nll) + ((v[0] - 0.5) ** 2 + (v[1] - 0.5) ** 2) / (2 * 24)

    grid = [step / 50 for step in range(151)]
    best = min(itertools.product(grid, grid), key=objective)
    assert 0 < max(best) < 3
    assert weights[0] == pytest.approx(best[0] / sum(best), abs=0.02)
    assert sum(weights) == pytest.approx(1)


def test_heads_that_are_alike_count_the_same(banks: Banks) -> None:
    assert fit_weights([banks.joint] * 3, banks.val) == pytest.approx([1 / 3] * 3, abs=1e-3)


def test_a_head_that_knows_nothing_is_left_out(banks: Banks) -> None:
    weight, bias = banks.joint.cloned_parameters()
    assert bias is not None
    drawn = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    assert fit_weights([banks.joint, LinearHead(10 * drawn, None)], banks.val) == pytest.approx([1, 0], abs=0.05)
    misled = LinearHead(-10 * weight, -10 * bias)  # the less likely, the more it says so
    assert fit_weights([misled, misled], banks.val) == [0.5, 0.5], "what else"


def test_what_has_no_weight_is_not_in_the_file(banks: Banks) -> None:
    fitted = fit(banks)
    assert isinstance(fitted.head, EnsembleHead)
    weights = weights_of(fitted)
    assert len(fitted.head.heads) == sum(weight > 0 for weight in weights.values())
    assert [float(weight) for weight in fitted.head.weights] == pytest.approx([w for w in weights.values() if w > 0])
    assert any(isinstance(head, KnnHead) for head in fitted.head.heads) is (weights["knn"] > 0)


def test_only_members_that_answer_for_a_prior_leave_some_of_it(banks: Banks) -> None:
    joint = banks.joint.duplicate()
    joint.prior_power = 1.0
    equal = settings(weights="equal").build(0).fit(banks.train, banks.val, joint)
    assert equal.head.prior_power == pytest.approx(1 / 3), "joint's third"
    alone = fit(banks, weights="equal", members={name: MEMBERS[name] for name in ("ridge", "knn")})
    assert alone.head.prior_power == 0


def test_images_a_few_at_a_time_give_the_same_weights(banks: Banks, monkeypatch: pytest.MonkeyPatch) -> None:
    from ltrec.models.heads import base

    heads: list[Head] = [blurred(banks, 0.6, seed) for seed in (1, 2)]
    before = fit_weights(heads, banks.val)
    monkeypatch.setattr(base, "_IMAGES_AT_ONCE", 5)
    assert fit_weights(heads, banks.val) == pytest.approx(before, abs=1e-4)


def test_many_small_errors_are_fewer_together() -> None:
    # Four heads that err apart: their pool errs less than any of them, on images that its weights do not know.
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(3000) % 3
    features = torch.randn(3000, 3, generator=generator) + 2 * torch.eye(3)[labels]
    heads: list[Head] = [
        LinearHead(torch.eye(3) + 0.5 * torch.randn(3, 3, generator=generator), None) for _ in range(4)
    ]
    val = FeatureBank(features[None, :150], labels[:150], {})
    pool = EnsembleHead(heads, torch.tensor(fit_weights(heads, val)))
    reached = [balanced_accuracy(head(features[150:]), labels[150:]) for head in (pool, *heads)]
    assert reached[0] > max(reached[1:])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"members": {"ridge": {"method": "ridge"}}}, "at least 2 items"),
        ({"members": ["ridge", "knn"]}, "a mapping from names to settings, such as"),
        ({"members": {"ridge": "ridge", "knn": "knn"}}, "the alias of a variant"),
        ({"members": {**MEMBERS, "Ridge": {"method": "ridge"}}}, "not a name for a member"),
        ({"members": {**MEMBERS, "crt": {"method": "crt", "images": True}}}, "on the feature bank, got true"),
        ({"members": {**MEMBERS, "more": {"method": "ensemble", "members": MEMBERS}}}, "does not match any of the exp"),
        ({"weights": "some"}, "'fitted' or 'equal'"),
    ],
)
def test_what_is_no_ensemble(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        settings(**changes)
