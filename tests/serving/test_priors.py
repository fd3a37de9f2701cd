"""Class priors: arithmetic by hand, and estimation on classes whose densities are known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy.special import softmax

from ltrec.serving.priors import counted_prior, estimate_prior, reweighted

if TYPE_CHECKING:
    from numpy.typing import NDArray

UNIFORM = np.full(3, 1 / 3)


def gaussian_images(prior: NDArray[np.float64], count: int, seed: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Log-densities (N, 3), but for a constant, and labels of N numbers, normally distributed around 0, 2 and 4."""
    random = np.random.default_rng(seed)
    labels = random.choice(3, size=count, p=prior)
    x = random.normal(2.0 * labels)
    return -((x[:, None] - 2.0 * np.arange(3)) ** 2) / 2, labels


def posterior(densities: NDArray[np.float64], prior: NDArray[np.float64]) -> NDArray[np.float32]:
    return np.asarray(softmax(densities + np.log(prior), axis=1), dtype=np.float32)


def test_the_prior_of_counts() -> None:
    counts = np.array([16, 4, 1])
    assert counted_prior(counts, 1.0) == pytest.approx([16 / 21, 4 / 21, 1 / 21])
    assert counted_prior(counts, 0.5) == pytest.approx([4 / 7, 2 / 7, 1 / 7])
    assert counted_prior(counts, 0.0) == pytest.approx(UNIFORM)
    # Corrected twice: the rare classes are expected.
    assert counted_prior(counts, -1.0) == pytest.approx([1 / 21, 4 / 21, 16 / 21])
    assert counted_prior(np.array([3, 0]), 0.0) == pytest.approx([0.5, 0.5])


def test_another_prior_by_hand() -> None:
    # (0.6, 0.3, 0.1) for (1/2, 1/4, 1/4); to (1/4, 1/4, 1/2) the ratios are ½, 1, 2: 0.3, 0.3, 0.2 of 0.8.
    given = np.array([[0.6, 0.3, 0.1]], np.float32)
    changed = reweighted(given, np.array([0.5, 0.25, 0.25]), np.array([0.25, 0.25, 0.5]))
    assert changed == pytest.approx(np.array([[3 / 8, 3 / 8, 2 / 8]]))
    assert changed.dtype == np.float32


def test_it_is_a_shift_of_the_logits() -> None:
    random = np.random.default_rng(0)
    logits, q, wanted = random.normal(size=(50, 3)) * 5, random.dirichlet([2] * 3), random.dirichlet([2] * 3)
    shifted = softmax(logits + np.log(wanted) - np.log(q), axis=1)
    assert reweighted(softmax(logits, axis=1).astype(np.float32), q, wanted) == pytest.approx(shifted, abs=1e-6)


def test_there_and_back_and_what_is_not_finite() -> None:
    given = np.array([[0.6, 0.3, 0.1], [np.nan, np.nan, np.nan]], np.float32)
    q, wanted = np.array([0.7, 0.2, 0.1]), np.array([0.1, 0.2, 0.7])
    back = reweighted(reweighted(given, q, wanted), wanted, q)
    assert back[0] == pytest.approx(given[0], abs=1e-6)
    assert np.isnan(back[1]).all()


def test_one_step_of_em_by_hand() -> None:
    # It begins with q, where the ratios are 1: the mean of the probabilities.
    given = np.array([[0.9, 0.1], [0.5, 0.5], [0.1, 0.9], [0.9, 0.1]], np.float32)
    found = estimate_prior(given, np.array([0.5, 0.5]), most_steps=1)
    assert found.prior == pytest.approx([0.6, 0.4])
    assert (found.steps, found.settled) == (1, False)


def test_images_that_are_told_apart_for_certain_are_counted() -> None:
    found = estimate_prior(np.eye(3, dtype=np.float32)[[0, 0, 0, 1]], UNIFORM)
    assert found.prior == pytest.approx([0.75, 0.25, 0.0])
    assert found.settled


@pytest.mark.parametrize("q", [UNIFORM, np.array([0.9, 0.09, 0.01])])
@pytest.mark.parametrize("true", [[0.7, 0.2, 0.1], [0.1, 0.1, 0.8], [1 / 3, 1 / 3, 1 / 3]])
def test_the_prior_of_normal_distributions_is_found(q: NDArray[np.float64], true: list[float]) -> None:
    # The standard error of the share of 20,000 images is below 0.004, and somewhat more where classes overlap.
    densities, labels = gaussian_images(np.array(true), 20_000, seed=1)
    given = posterior(densities, q)
    found = estimate_prior(given, q)
    assert found.settled
    assert found.prior == pytest.approx(true, abs=0.015)
    none, right, em = (
        (answers.argmax(axis=1) == labels).mean()
        for answers in (given, reweighted(given, q, np.array(true)), reweighted(given, q, found.prior))
    )
    assert right >= none
    assert em == pytest.approx(right, abs=0.002)


def test_the_likelihood_rises_with_each_step() -> None:
    densities, _ = gaussian_images(np.array([0.1, 0.2, 0.7]), 500, seed=2)
    given = posterior(densities, UNIFORM)
    priors = [UNIFORM, *(estimate_prior(given, UNIFORM, most_steps=steps).prior for steps in (1, 2, 5, 20, 100))]
    likelihoods = [np.log(np.exp(densities) @ prior).sum() for prior in priors]
    assert likelihoods == sorted(likelihoods)


def test_more_images_than_a_block() -> None:
    densities, _ = gaussian_images(np.array([0.5, 0.3, 0.2]), 3001, seed=3)
    given = posterior(densities, UNIFORM)
    exact = given.astype(np.float64).mean(axis=0)
    assert estimate_prior(given, UNIFORM, most_steps=1).prior == pytest.approx(exact / exact.sum())
