"""Class-balanced ridge regression against normal equations written out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from pydantic import ValidationError
from torch.testing import assert_close

from ltrec.models.heads import LinearHead
from ltrec.rebalancing.feature_bank import FeatureBank
from ltrec.rebalancing.methods.ridge import RidgeSettings
from tests.scores import balanced_accuracy

if TYPE_CHECKING:
    from ltrec.rebalancing.methods.base import FitResult
    from tests.conftest import Banks


def fit(banks: Banks, *lambdas: float, **settings: object) -> FitResult:
    given = {"method": "ridge", "lambdas": list(lambdas), **settings}
    return RidgeSettings.model_validate(given).build(0).fit(*banks)


@pytest.mark.parametrize(("views", "count"), [("plain", 1), ("all", 2)])
@pytest.mark.parametrize("strength", [0.01, 1.0])
def test_the_normal_equations(banks: Banks, views: str, count: int, strength: float) -> None:
    x = banks.train.features[:count].flatten(0, 1).double()
    y = torch.nn.functional.one_hot(banks.train.labels.repeat(count), 3).double()
    weights = 1 / (3 * y.sum(dim=0))[y.argmax(dim=1)]
    center = weights @ x
    added = strength * ((x - center) * weights[:, None]).mul(x - center).sum() / 5
    # A column of ones for the intercept, which λ spares.
    ones = torch.cat((x, torch.ones(len(x), 1, dtype=torch.float64)), dim=1)
    spared = torch.diag(torch.tensor([1.0] * 5 + [0.0], dtype=torch.float64))
    solved = torch.linalg.solve(ones.T @ (weights[:, None] * ones) + added * spared, ones.T @ (weights[:, None] * y))
    head = fit(banks, strength, views=views).head
    assert isinstance(head, LinearHead)
    assert_close(head.weight, solved[:5].T.float(), rtol=1e-4, atol=1e-5)
    assert_close(head.bias, solved[5].float(), rtol=1e-4, atol=1e-5)


def test_each_class_counts_the_same() -> None:
    # Doubling the images of a class changes nothing.
    x = torch.tensor([[0.0, 1.0], [1.0, 0.5], [3.0, 2.0], [2.0, 2.5], [4.0, 0.0]])
    labels = torch.tensor([0, 0, 1, 1, 1])
    once = FeatureBank(x[None], labels, {})
    more = FeatureBank(torch.cat((x, x[:2]))[None], torch.cat((labels, labels[:2])), {})
    settings, joint = RidgeSettings(method="ridge", lambdas=[0.1]), LinearHead(torch.zeros(2, 2), None)
    first, second = (settings.build(0).fit(train, once, joint).head for train in (once, more))
    assert_close(first.scores(x), second.scores(x))


def test_the_grid_shares_one_decomposition_and_the_best_is_taken(banks: Banks, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    eigh = torch.linalg.eigh
    monkeypatch.setattr(torch.linalg, "eigh", lambda matrix: calls.append(matrix.shape) or eigh(matrix))
    fitted = RidgeSettings(method="ridge").build(0).fit(*banks)
    assert calls == [(5, 5)]
    for row in fitted.curve:
        alone = fit(banks, float(row["lambda"])).head
        assert balanced_accuracy(alone(banks.val.plain), banks.val.labels) == pytest.approx(row["val"])


def test_odd_lambdas_are_refused() -> None:
    for lambdas in ([], [0.0], [-1.0], [1e9]):
        with pytest.raises(ValidationError, match="lambdas"):
            RidgeSettings(method="ridge", lambdas=lambdas)
