"""Gaussians of one covariance against slow loops and their limits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from pydantic import ValidationError
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch.testing import assert_close

from ltrec.models.heads import LinearHead
from ltrec.rebalancing.methods.gda import GdaSettings
from tests.scores import balanced_accuracy

if TYPE_CHECKING:
    from ltrec.rebalancing.methods.base import FitResult
    from tests.conftest import Banks


def fit(banks: Banks, *shrinkages: float, **settings: object) -> FitResult:
    given = {"method": "gda", "shrinkages": list(shrinkages), **settings}
    return GdaSettings.model_validate(given).build(0).fit(*banks)


def relative(logits: torch.Tensor) -> torch.Tensor:
    """Logits but for what all classes share, which no probability depends on."""
    return logits - logits.mean(dim=1, keepdim=True)


@pytest.mark.parametrize(("views", "count"), [("plain", 1), ("all", 2)])
@pytest.mark.parametrize("shrinkage", [0.05, 0.5])
def test_the_formula_by_an_inverse(banks: Banks, views: str, count: int, shrinkage: float) -> None:
    x = banks.train.features[:count].flatten(0, 1).double()
    y = banks.train.labels.repeat(count)
    means = torch.stack([x[y == label].mean(dim=0) for label in range(3)])
    within = (x - means[y]).T @ (x - means[y]) / len(x)
    covariance = (1 - shrinkage) * within + shrinkage * within.trace() / 5 * torch.eye(5, dtype=torch.float64)
    weight = means @ torch.linalg.inv(covariance)
    wanted = banks.val.plain.double() @ weight.T - (weight * means).sum(dim=1) / 2
    head = fit(banks, shrinkage, views=views).head
    # The covariance is taken to have a mean eigenvalue of 1.
    scale = within.trace() / 5
    assert_close(relative(head.scores(banks.val.plain)), relative(wanted * scale).float(), rtol=1e-4, atol=1e-4)


def test_scikit_learns_classes_with_equal_priors(banks: Banks) -> None:
    other = LinearDiscriminantAnalysis(solver="svd")
    x, y = banks.train.plain.double().numpy(), banks.train.labels.numpy()
    other.fit(x, y)
    logits = torch.from_numpy(other.decision_function(banks.val.plain.double().numpy()))
    logits -= torch.log(torch.tensor([30, 10, 2], dtype=torch.float64) / 42)  # its priors are those of the images
    own = fit(banks, 1e-9).head(banks.val.plain)
    assert own.argmax(dim=1).tolist() == logits.argmax(dim=1).tolist()


def test_shrunk_as_a_whole_it_is_the_nearest_mean(banks: Banks) -> None:
    x, y = banks.train.plain, banks.train.labels
    means = torch.stack([x[y == label].mean(dim=0) for label in range(3)])
    nearest = torch.cdist(banks.val.plain, means).argmin(dim=1)
    assert fit(banks, 1.0).head(banks.val.plain).argmax(dim=1).tolist() == nearest.tolist()


def test_the_grid_shares_one_decomposition_and_the_best_is_taken(banks: Banks, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    eigh = torch.linalg.eigh
    monkeypatch.setattr(torch.linalg, "eigh", lambda matrix: calls.append(matrix.shape) or eigh(matrix))
    fitted = GdaSettings(method="gda").build(0).fit(*banks)
    assert calls == [(5, 5)]
    for row in fitted.curve:
        alone = fit(banks, float(row["shrinkage"])).head
        assert balanced_accuracy(alone(banks.val.plain), banks.val.labels) == pytest.approx(row["val"])
    assert isinstance(fitted.head, LinearHead)


def test_odd_shrinkages_are_refused() -> None:
    for shrinkages in ([], [0.0], [1.1], [-1.0]):
        with pytest.raises(ValidationError, match="shrinkages"):
            GdaSettings(method="gda", shrinkages=shrinkages)
