"""The champion and the doubt about it, by hand and by simulation."""

from __future__ import annotations

import numpy as np
import pytest

from ltrec.evaluation.choice import Choice, choose, resampled_accuracy

SCORES = {"joint": (0.70, -0.9), "ncm": (0.79, -0.8), "tau": (0.79, -0.7), "crt": (0.80, -0.6)}
COMPLEXITY = {"joint": 0, "ncm": 1, "tau": 1, "crt": 2}
# Against crt the standard error of both ncm and tau is 0.02, that of joint 0.
RESAMPLED = {
    "joint": np.array([0.68, 0.72]), "ncm": np.array([0.79, 0.79]), "tau": np.array([0.79, 0.79]),
    "crt": np.array([0.78, 0.82]),
}  # fmt: skip


def test_the_best_is_the_first_of_equals() -> None:
    assert choose(SCORES, COMPLEXITY, {}) == Choice("crt", "crt")
    assert choose({"a": (0.5, -1.0), "b": (0.5, -1.0)}, {"a": 2, "b": 0}, {}).champion == "a"
    assert choose({"a": (0.5, -1.0), "b": (0.5, -0.5)}, {"a": 0, "b": 1}, {}).champion == "b"


def test_the_simplest_within_one_standard_error() -> None:
    found = choose(SCORES, COMPLEXITY, RESAMPLED, prefer="simplest")
    # joint is 0.10 behind; of ncm and tau, 0.01 behind, tau is the likelier.
    assert (found.champion, found.best) == ("tau", "crt")
    assert choose(SCORES, COMPLEXITY, RESAMPLED).champion == "crt"
    surely = RESAMPLED | {"crt": np.array([0.80, 0.80])}
    assert choose(SCORES, COMPLEXITY, surely, prefer="simplest").champion == "crt"


def test_equals_share_a_resample() -> None:
    found = choose(SCORES, COMPLEXITY, RESAMPLED)
    assert found.best_on_val == {"joint": 0, "ncm": 0.25, "tau": 0.25, "crt": 0.5}
    assert found.doubt == 0.5


def test_what_is_said_of_it() -> None:
    assert str(Choice("crt", "crt")) == "by balanced accuracy on val"
    assert str(Choice("crt", "crt", {"crt": 0.616})) == "by balanced accuracy on val (best in 62 % of resamples of val)"
    assert str(Choice("tau", "crt", {"tau": 0.25})) == (
        "by balanced accuracy on val, the simplest within one standard error of crt (best in 25 % of resamples of val)"
    )
    assert Choice("crt", "crt").doubt is None


def test_a_variant_that_is_right_wherever_another_is_and_once_more() -> None:
    # Of class 1 the two are right on both images and on one: of two draws the lesser gets 0, ½ or 1 with probability
    # ¼, ½, ¼. So it is as good in a quarter of the resamples, which both share.
    labels = np.array([1, 0, 1, 0])
    right = {"lesser": np.array([True, True, False, True]), "better": np.ones(4, dtype=bool)}
    samples = resampled_accuracy(right, labels, resamples=20_000, seed=0)
    assert samples["better"] == pytest.approx(1)
    assert [np.mean(np.isclose(samples["lesser"], value)) for value in (0.5, 0.75, 1.0)] == pytest.approx(
        [0.25, 0.5, 0.25], abs=0.01
    )
    found = choose({"lesser": (0.75, 0), "better": (1.0, 0)}, {"lesser": 0, "better": 0}, samples)
    assert found.doubt == pytest.approx(1 / 8, abs=0.01)


def test_all_variants_are_judged_on_the_same_resamples_and_the_seed_decides() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 40)
    right = {"one": random.random(40) < 0.7, "two": random.random(40) < 0.7}
    first, again, other = (resampled_accuracy(right, labels, resamples=50, seed=seed) for seed in (1, 1, 2))
    assert all(np.array_equal(first[name], again[name]) for name in right)
    assert not np.array_equal(first["one"], other["one"])
    same = resampled_accuracy({"one": right["one"], "copy": right["one"]}, labels, resamples=50, seed=1)
    assert np.array_equal(same["one"], same["copy"])
    assert np.array_equal(same["one"], first["one"])


def test_without_resamples_or_a_class_of_two_images_nothing_is_said() -> None:
    right = {"one": np.array([True, False, True])}
    assert resampled_accuracy(right, np.array([0, 1, 1]), resamples=0, seed=0) == {}
    assert resampled_accuracy(right, np.array([0, 1, 2]), resamples=9, seed=0) == {}
