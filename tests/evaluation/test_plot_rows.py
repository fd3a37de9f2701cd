"""The rows behind the plots, of a small comparison whose figures are plain to see."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest

from ltrec.evaluation import plot_rows
from ltrec.evaluation.choice import Choice
from ltrec.evaluation.metrics import score
from ltrec.evaluation.plot_rows import running_mean, running_window
from ltrec.evaluation.predictions import Predictions
from ltrec.evaluation.report import Report, Result
from ltrec.evaluation.statistics import bootstrap
from tests.scores import made_up_calibration

LABELS = np.array([0, 0, 1, 1, 2, 2])
COUNTS = np.array([50, 200, 5])
GROUPS = np.array(["medium", "many", "few"])
ANSWERS = {"joint": [0, 1, 1, 1, 1, 1], "ncm": [0, 0, 1, 1, 2, 2], "tau_norm": [0, 0, 1, 1, 2, 0]}


def compared(labels: np.ndarray = LABELS, reference: str | None = "joint") -> Report:
    """Return a report on joint, NCM without norms, and τ-norm as the champion, with a curve."""
    results = {}
    for name, predicted in ANSWERS.items():
        given = Predictions(np.array(predicted)[: len(labels)], np.ones(len(labels), dtype=bool))
        curve = [{"tau": 0.0, "val": 0.5}, {"tau": 0.5, "val": 0.75}] if name == "tau_norm" else []
        results[name] = Result(
            given, score(labels, given, GROUPS),
            bootstrap(labels, {name: given}, GROUPS, resamples=20, seed=0)[name], None,
            {"val": {"balanced": 0.625}, "chosen": {"tau": 0.5} if curve else {}, "curve": curve},
            None if name == "ncm" else np.array([1.0, 2.0, 3.0]), made_up_calibration(labels, given.predicted, 3),
        )  # fmt: skip
    return Report(
        ("cat", "dog", "red | panda"), COUNTS, GROUPS, labels, results, Choice("tau_norm", "tau_norm"), reference
    )


@pytest.mark.parametrize(("classes", "window"), [(10, 1), (40, 1), (41, 3), (100, 5), (365, 19), (1000, 51)])
def test_window_is_odd_and_a_twentieth(classes: int, window: int) -> None:
    assert running_window(classes) == window


def test_running_mean_by_hand() -> None:
    values = np.array([1.0, 2.0, 6.0, np.nan, 3.0])
    # Ends average what there is; what is not known does not count.
    np.testing.assert_allclose(running_mean(values, 3), [1.5, 3.0, 4.0, 4.5, 3.0])
    np.testing.assert_array_equal(running_mean(values, 1), values)


def test_running_mean_of_nothing_is_nan() -> None:
    np.testing.assert_array_equal(running_mean(np.array([1.0, np.nan, np.nan, np.nan, 1.0]), 3)[2], np.nan)


def test_ranks_fall_with_the_training_images() -> None:
    rows = [row for row in plot_rows.rank_rows(compared()) if row["variant"] == "joint"]
    assert [(row["rank"], row["class"], row["train"], row["shot"], row["accuracy"], row["smooth"]) for row in rows] == [
        (0, "dog", 200, "many", 1.0, 1.0), (1, "cat", 50, "medium", 0.5, 0.5), (2, "red | panda", 5, "few", 0.0, 0.0),
    ]  # fmt: skip


def test_norms_are_those_of_linear_heads_over_their_mean() -> None:
    rows = plot_rows.norm_rows(compared())
    assert [row["variant"] for row in rows] == ["joint"] * 3 + ["tau_norm"] * 3
    assert [(row["norm"], row["relative"], row["smooth"], row["train"], row["shot"]) for row in rows[:3]] == [
        (2.0, 1.0, 1.0, 200, "many"), (1.0, 0.5, 0.5, 50, "medium"), (3.0, 1.5, 1.5, 5, "few"),
    ]  # fmt: skip


def test_curves_say_what_was_chosen_and_what_joint_reaches() -> None:
    names = ("variant", "tau", "val", "chosen", "reference", "reference_val")
    assert [tuple(row[name] for name in names) for row in plot_rows.tau_rows(compared())] == [
        ("tau_norm", 0.0, 0.5, 0, "joint", 0.625), ("tau_norm", 0.5, 0.75, 1, "joint", 0.625),
    ]  # fmt: skip
    alone = plot_rows.tau_rows(compared(reference=None))
    assert {(row["reference"], row["reference_val"]) for row in alone} == {("", "")}


def test_group_rows_carry_intervals() -> None:
    assert plot_rows.group_rows(compared())[0] == {
        "variant": "joint", "group": "many", "accuracy": 1.0, "low": 1.0, "high": 1.0, "place": 0, "champion": 0,
    }  # fmt: skip


def test_confusion_rows_hold_what_happened_to_the_champion_and_to_joint() -> None:
    rows = plot_rows.confusion_rows(compared())
    names = ("variant", "actual", "predicted", "actual_rank", "predicted_rank", "images", "share", "shot")
    assert [tuple(row[name] for name in names) for row in rows] == [
        ("tau_norm", "dog", "dog", 0, 0, 2, 1.0, "many"),
        ("tau_norm", "cat", "cat", 1, 1, 2, 1.0, "medium"),
        ("tau_norm", "red | panda", "cat", 2, 1, 1, 0.5, "few"),
        ("tau_norm", "red | panda", "red | panda", 2, 2, 1, 0.5, "few"),
        ("joint", "dog", "dog", 0, 0, 2, 1.0, "many"),
        ("joint", "cat", "dog", 1, 0, 1, 0.5, "medium"),
        ("joint", "cat", "cat", 1, 1, 1, 0.5, "medium"),
        ("joint", "red | panda", "dog", 2, 0, 2, 1.0, "few"),
    ]


def test_a_class_without_test_images_has_a_place_and_no_share() -> None:
    rows = plot_rows.confusion_rows(compared(LABELS[:4], reference=None))
    assert [(row["actual"], row["predicted"], row["images"], row["share"]) for row in rows] == [
        ("dog", "dog", 2, 1.0), ("cat", "cat", 2, 1.0), ("red | panda", "red | panda", 0, ""),
    ]  # fmt: skip


def test_reliability_rows_are_the_bins_that_hold_images() -> None:
    rows = [row for row in plot_rows.reliability_rows(compared()) if row["variant"] == "joint"]
    # Confidences .4, .5, .6, .7, .8 and .9 lie in six bins; joint is right on the first, the third and the fourth.
    assert [(row["confidence"], row["accuracy"], row["share"]) for row in rows] == [
        (pytest.approx(sure), right, pytest.approx(1 / 6))
        for sure, right in zip((0.4, 0.5, 0.6, 0.7, 0.8, 0.9), (1, 0, 1, 1, 0, 0), strict=True)
    ]


def test_risk_rows_go_from_the_surest_image_to_all() -> None:
    rows = [row for row in plot_rows.risk_rows(compared()) if row["variant"] == "joint"]
    assert [(row["coverage"], row["risk"]) for row in rows] == [
        (pytest.approx(images / 6), pytest.approx(wrong / images))
        for images, wrong in zip(range(1, 7), (1, 2, 2, 2, 3, 3), strict=True)
    ]


def test_of_a_long_curve_points_at_even_coverages_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plot_rows, "_POINTS", 3)
    rows = [row for row in plot_rows.risk_rows(compared()) if row["variant"] == "joint"]
    assert [row["coverage"] for row in rows] == pytest.approx([2 / 6, 4 / 6, 1])


def test_a_variant_has_one_place_in_all_tables() -> None:
    looks = {
        name: {(row["variant"], row["place"], row["champion"]) for row in rows}
        for name, rows in plot_rows.tables(compared()).items()
    }
    assert looks["accuracy_by_rank"] == {("joint", 0, 0), ("ncm", 1, 0), ("tau_norm", 2, 1)}
    assert looks["weight_norms"] == looks["confusion"] == {("joint", 0, 0), ("tau_norm", 2, 1)}
    without = plot_rows.group_rows(compared(reference=None))
    assert {(row["variant"], row["place"]) for row in without} == {("joint", 1), ("ncm", 2), ("tau_norm", 3)}


def test_an_empty_table_keeps_the_header_of_a_full_one() -> None:
    for name, header in plot_rows.HEADERS.items():
        assert next(csv.reader(io.StringIO(header))) == list(plot_rows.tables(compared())[name][0])
