"""Scores and figures of the open set, by hand and against loops that follow the definitions word for word."""

from __future__ import annotations

import json
import math
import time

import numpy as np
import pytest

from ltrec.evaluation import open_set as openset
from ltrec.evaluation.open_set import ScoredImages

# Six known images, of which the head takes the third and the last for another class, and four unknown ones:
# score  .9 .8 .7 .6 .5 .4 .3 .2 .1 .1
# known   ✓  ✓  ✓  –  ✓  –  ✓  –  –  ✓
# right   ✓  ✓  –     ✓     ✓        –
SCORE = np.array([0.9, 0.8, 0.7, 0.5, 0.3, 0.1, 0.6, 0.4, 0.2, 0.1])
KNOWN = np.array([True] * 6 + [False] * 4)
RIGHT = np.array([True, True, False, True, True, False] + [False] * 4)


def test_scores_by_hand() -> None:
    # Softmax of (log 6, log 3, log 1) is (.6, .3, .1), and the sum of the exponentials 10.
    logits = np.log(np.array([[6.0, 3.0, 1.0], [1.0, 1.0, 2.0]], dtype=np.float32))
    given = openset.confidence(logits)
    assert given["msp"] == pytest.approx([0.6, 0.5])
    assert given["energy"] == pytest.approx([math.log(10), math.log(4)])
    # Logits that exp cannot take; a constant added to all of an image's shows in the energy alone.
    far = openset.confidence((logits.astype(np.float64) + 4096).astype(np.float32))
    assert far["msp"] == pytest.approx([0.6, 0.5], abs=1e-3)
    assert far["energy"] == pytest.approx([4096 + math.log(10), 4096 + math.log(4)], abs=1e-3)


def test_scored_images_by_hand() -> None:
    logits = np.array([[2, 0, 0], [0, 2, 0], [0, 0, 2], [2, 0, 0]], dtype=np.float32)
    scored = openset.score_images(iter([logits[:3], logits[3:]]), np.array([0, 2, -1, -1]))
    assert scored.known.tolist() == [True, True, False, False]
    assert scored.right.tolist() == [True, False, False, False]
    assert scored.scores["energy"] == pytest.approx([math.log(math.exp(2) + 2)] * 4)


def test_auroc_by_hand() -> None:
    # Of the 6·4 pairs of a known and an unknown image the known one is ahead in 4 + 4 + 4 + 3 + 2 + ½.
    assert openset.auroc(SCORE, KNOWN) == pytest.approx(17.5 / 24)


def test_fpr95_by_hand() -> None:
    # ⌈.95·6⌉ = 6 known images must be accepted: θ = .1, which accepts all the unknown ones.
    assert openset.fpr95(SCORE, KNOWN) == 1.0
    # ⌈.95·20⌉ = 19 of the scores 20 … 1: θ = 2, and the unknown image that ties with it is accepted.
    score = np.array([*range(1, 21), 2.0, 1.5, 30.0, 0.0], dtype=np.float64)
    assert openset.fpr95(score, np.arange(24) < 20) == 0.5
    # Where many known images tie at the threshold, all are accepted.
    assert openset.fpr95(np.array([5.0, 1.0, 1.0, 1.0, 1.0, 2.0]), np.arange(6) < 4) == 1.0


@pytest.mark.parametrize(
    ("threshold", "hits", "strangers"),
    [(1.0, 0, 0), (0.9, 1, 0), (0.6, 2, 1), (0.5, 3, 1), (0.45, 3, 1), (0.3, 4, 2), (0.1, 4, 4), (0.0, 4, 4)],
)
def test_f_measure_by_hand(threshold: float, hits: int, strangers: int) -> None:
    precision, recall = hits / 6, hits / max(hits + strangers, 1)
    expected = 2 * precision * recall / (precision + recall) if hits else 0.0
    assert openset.f_measure(SCORE, KNOWN, RIGHT, threshold) == pytest.approx(expected)


def test_the_best_threshold_by_hand() -> None:
    # 2·TP / (6 + TP + strangers): 2/7, 4/8, 4/8, 4/9, 6/10, 6/11, 8/12, 8/13, 8/14.
    assert openset.best_threshold(SCORE, KNOWN, RIGHT) == 0.3
    # The right image at .9 gives 2/3; the wrong one at .5 adds nothing, so that the lower threshold does as well.
    assert openset.best_threshold(np.array([0.9, 0.5, 0.4]), np.array([True, True, False]), np.arange(3) == 0) == 0.5
    # Right at .5 ties with four unknown images: accepting one is accepting all.
    tied = np.array([0.9, 0.5, 0.5, 0.5, 0.5, 0.5])
    assert openset.best_threshold(tied, np.arange(6) < 2, np.arange(6) < 2) == 0.9
    # A head that is never right on val: any threshold is as good.
    assert openset.best_threshold(SCORE, KNOWN, np.zeros(10, dtype=bool)) == 0.1


def slow_f_measure(score: float, truth: list[tuple[float, int, int]]) -> float:
    """As the published code counts: (score, label, prediction), and predictions below the threshold become -1."""
    true_positive = false_positive = false_negative = 0
    for own, label, prediction in truth:
        said = prediction if own >= score else -1
        true_positive += label != -1 and said == label
        false_positive += label not in (-1, said)
        false_negative += label == -1 and said != label
    if true_positive == 0:
        return 0.0
    precision = true_positive / (true_positive + false_positive)
    recall = true_positive / (true_positive + false_negative)
    return 2 * precision * recall / (precision + recall)


def slow_fpr95(known: list[float], unknown: list[float]) -> float:
    for threshold in sorted(known, reverse=True):
        if 100 * sum(value >= threshold for value in known) >= 95 * len(known):
            return sum(value >= threshold for value in unknown) / len(unknown)
    raise AssertionError


@pytest.mark.parametrize("seed", range(8))
def test_against_slow_loops(seed: int) -> None:
    random = np.random.default_rng(seed)
    count = int(random.integers(20, 120))
    logits = (random.normal(size=(count, 4)) * 2).round(seed % 3).astype(np.float32)  # with ties and without
    labels = random.integers(-1, 4, count)
    labels[:2] = [-1, 0]
    scored = openset.score_images([logits[:7], logits[7:]], labels)
    probabilities = np.exp(logits.astype(np.float64)) / np.exp(logits.astype(np.float64)).sum(axis=1, keepdims=True)
    expected = {"msp": probabilities.max(axis=1), "energy": np.log(np.exp(logits.astype(np.float64)).sum(axis=1))}
    predicted = probabilities.argmax(axis=1).tolist()
    for name, score in scored.scores.items():
        assert score == pytest.approx(expected[name], rel=1e-9)
        known, unknown = score[labels >= 0].tolist(), score[labels < 0].tolist()
        wins = [1.0 if a > b else 0.5 if a == b else 0.0 for a in known for b in unknown]
        assert openset.auroc(score, scored.known) == pytest.approx(sum(wins) / len(wins))
        assert openset.fpr95(score, scored.known) == pytest.approx(slow_fpr95(known, unknown))
        truth = list(zip(score.tolist(), labels.tolist(), predicted, strict=True))
        by_threshold = {value: slow_f_measure(value, truth) for value in sorted(set(score.tolist()))}
        for threshold, value in by_threshold.items():
            assert openset.f_measure(score, scored.known, scored.right, threshold) == pytest.approx(value)
        best = openset.best_threshold(score, scored.known, scored.right)
        assert by_threshold[best] == pytest.approx(max(by_threshold.values()))
        assert all(value < by_threshold[best] - 1e-12 for at, value in by_threshold.items() if at < best)


def test_the_threshold_is_chosen_on_val_and_reported_on_test() -> None:
    val = ScoredImages(KNOWN, RIGHT, {"msp": SCORE, "energy": 10 * SCORE})
    test = ScoredImages(
        np.array([True, False]), np.array([True, False]), {"msp": np.array([0.25, 0.05]), "energy": SCORE[:2]}
    )
    found = openset.evaluate_open_set(test, val)
    # On val .3 is the best; on test it rejects both images, and the published .1 is perfect.
    assert found["msp"] == {"auroc": 1.0, "fpr95": 0.0, "f_measure": 0.0, "threshold": 0.3}
    assert found["f_measure_at_0.1"] == 1.0
    # Neither .9 nor .8 reaches 3.
    assert found["energy"] == {"auroc": 1.0, "fpr95": 0.0, "f_measure": 0.0, "threshold": pytest.approx(3.0)}


def test_without_unknown_images_on_val_there_is_no_threshold() -> None:
    test = ScoredImages(KNOWN, RIGHT, {"msp": SCORE, "energy": SCORE})
    val = ScoredImages(KNOWN[:6], RIGHT[:6], {"msp": SCORE[:6], "energy": SCORE[:6]})
    found = json.loads(json.dumps(openset.evaluate_open_set(test, val), allow_nan=False))
    assert found["energy"] == {
        "auroc": pytest.approx(17.5 / 24), "fpr95": 1.0, "f_measure": None, "threshold": None,
    }  # fmt: skip
    assert found["f_measure_at_0.1"] == pytest.approx(8 / 14)


def test_a_million_thresholds_are_swept_in_no_time() -> None:
    score = np.random.default_rng(0).random(1_000_000)
    known = np.arange(1_000_000) % 4 > 0
    started = time.perf_counter()
    openset.best_threshold(score, known, known)
    assert time.perf_counter() - started < 20  # a loop over thresholds × images would take days
