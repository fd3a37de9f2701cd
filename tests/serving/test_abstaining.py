"""The threshold below which no answer is given, on images whose confidences are written down."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ltrec.errors import UserError
from ltrec.serving.abstaining import AbstainSettings, Abstention

# The surest first: right, right, wrong, right, wrong.
CONFIDENCES = np.array([0.9, 0.8, 0.7, 0.6, 0.5], np.float32)
RIGHT = np.array([True, True, False, True, False])
EVEN = np.ones(5)
SHUFFLED = np.array([3, 0, 4, 1, 2])


def choose(weights: np.ndarray = EVEN, **settings: float) -> Abstention:  # type: ignore[type-arg]
    return AbstainSettings(**settings).choose(CONFIDENCES[SHUFFLED], RIGHT[SHUFFLED], weights[SHUFFLED])


@pytest.mark.parametrize(
    ("coverage", "wanted"),
    [
        (0.2, (0.85, 0.2, 0.0)),
        (0.21, (0.75, 0.4, 0.0)),
        (0.6, (0.65, 0.6, 1 / 3)),
        (0.81, (0.0, 1.0, 0.4)),
    ],
)
def test_coverage(coverage: float, wanted: tuple[float, float, float]) -> None:
    found = choose(coverage=coverage)
    assert (found.below, found.coverage, found.error) == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (0.01, (0.75, 0.4, 0.0)),
        (0.25, (0.55, 0.8, 0.25)),  # past 1/3 at three answers, down again to 1/4 at four
        (0.4, (0.0, 1.0, 0.4)),
    ],
)
def test_error(error: float, wanted: tuple[float, float, float]) -> None:
    found = choose(error=error)
    assert (found.below, found.coverage, found.error) == pytest.approx(wanted)


def test_images_count_by_their_weights() -> None:
    # Of a weight of 8 the surest has 4: alone it answers half.
    weights = np.array([4.0, 1.0, 1.0, 1.0, 1.0])
    assert choose(weights, coverage=0.5).below == pytest.approx(0.85)
    assert choose(weights, error=0.17).error == pytest.approx(1 / 7)  # at four answers; at three 1/6


def test_what_is_equally_sure_is_answered_together() -> None:
    same = np.array([0.9, 0.9, 0.9, 0.5], np.float32)
    found = AbstainSettings(coverage=0.3).choose(same, np.array([True, False, True, True]), np.ones(4))
    assert (found.below, found.coverage, found.error) == pytest.approx((0.7, 0.75, 1 / 3))


def test_an_error_that_cannot_be_reached() -> None:
    with pytest.raises(UserError, match=r"error 0\.1 is not reached on val.*at best it is 0\.5, with 100\.0%"):
        AbstainSettings(error=0.1).choose(CONFIDENCES[:2], np.array([False, True]), np.ones(2))


@pytest.mark.parametrize("given", [{}, {"coverage": 0.9, "error": 0.1}])
def test_one_of_both(given: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="give either coverage or error"):
        AbstainSettings.model_validate_json(json.dumps(given))


@pytest.mark.parametrize("value", [0, 1, -0.1, 1.5])
def test_shares_lie_between_0_and_1(value: float) -> None:
    for name in ("coverage", "error"):
        with pytest.raises(ValueError, match=r"should be (greater|less) than"):
            AbstainSettings.model_validate_json(json.dumps({name: value}))
