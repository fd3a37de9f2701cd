"""Tables and JSON of a small comparison whose figures are plain to see."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from ltrec.data.shot_groups import shot_groups
from ltrec.evaluation.choice import Choice
from ltrec.evaluation.metrics import score
from ltrec.evaluation.predictions import Predictions
from ltrec.evaluation.report import Report, Result, selected_on
from ltrec.evaluation.statistics import bootstrap, compare
from tests.scores import made_up_calibration

LABELS = np.array([0, 0, 1, 1, 2, 2])
COUNTS = np.array([50, 200, 5])
GROUPS = shot_groups(COUNTS, 100, 20)
NAMES = ("cat", "dog", "red | panda")
ANSWERS = {"joint": [0, 1, 1, 1, 1, 1], "tau_norm": [0, 0, 1, 1, 2, 0]}


@pytest.fixture
def report() -> Report:
    results = {}
    comparisons = compare({name: np.array(predicted) == LABELS for name, predicted in ANSWERS.items()}, "joint")
    for name, predicted in ANSWERS.items():
        given = Predictions(np.array(predicted), np.ones(6, dtype=bool))
        curve = [] if name == "joint" else [{"tau": 0.0, "val": 0.5}, {"tau": 0.5, "val": 0.75}]
        results[name] = Result(
            given,
            score(LABELS, given, GROUPS),
            bootstrap(LABELS, {name: given}, GROUPS, resamples=20, seed=0)[name],
            comparisons.get(name),
            {"val": {"balanced": 0.5}, "chosen": {"tau": 0.5} if curve else {}, "curve": curve},
            np.array([1.0, 2.0, 3.0]),
            made_up_calibration(LABELS, given.predicted, 3),
        )
    choice = Choice("tau_norm", "tau_norm", {"joint": 0.375, "tau_norm": 0.625})
    return Report(NAMES, COUNTS, GROUPS, LABELS, results, choice, "joint")


def printed(report: Report, width: int, encoding: str = "utf-8") -> str:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    Console(file=stream, width=width).print(report)
    stream.seek(0)
    return stream.read()


def test_json_holds_every_variant_and_the_champion(report: Report) -> None:
    content = json.loads(json.dumps(report.as_json(), allow_nan=False))
    assert list(content) == ["joint", "tau_norm", "champion", "champion_doubt", "selected_on", "test_set"]
    assert (content["champion"], content["selected_on"]) == ("tau_norm", "val")
    assert content["joint"]["p_value_against_joint"] is None
    assert content["joint"]["discordant"] is None
    # τ-norm alone is right on two images, joint alone on none: p = 2·(1/4).
    assert content["tau_norm"]["p_value_against_joint"] == pytest.approx(0.5)
    assert content["tau_norm"]["discordant"] == {"better": 2, "worse": 0}
    assert content["joint"]["medium"] == 0.5
    assert (content["joint"]["best_on_val"], content["champion_doubt"]) == (0.375, 0.375)
    assert {"nll", "ece", "classwise_ece", "aurc"} <= set(content["joint"])
    assert content["joint"]["interval"]["many"] == [1, 1]


def test_per_class_rows_keep_the_order_of_labels(report: Report) -> None:
    assert report.per_class_rows()[2] == {
        "label": 2, "class": "red | panda", "train": 5, "test": 2, "shot": "few", "joint": 0.0, "tau_norm": 0.5,
    }  # fmt: skip
    assert "joint" not in report.per_class_rows(["tau_norm"])[0]


def test_a_class_without_test_images_is_said_not_to_be_tested(report: Report) -> None:
    assert "not tested" not in report.note
    larger = replace(
        report, names=(*NAMES, "eel"), counts=np.array([*COUNTS, 1]), groups=np.array([*GROUPS, "few"]),
    )  # fmt: skip
    assert larger.per_class_rows()[3] == {
        "label": 3, "class": "eel", "train": 1, "test": 0, "shot": "few", "joint": "not tested",
        "tau_norm": "not tested",
    }  # fmt: skip
    assert "in 3 classes (many 1, medium 1, few 1); not tested: 1 of 4 classes, 'eel';" in larger.markdown()
    assert "not tested: 1 of 4 classes, 'eel'" in " ".join(printed(larger, 200).split())


def test_what_was_selected_on_test_is_marked(report: Report) -> None:
    marked = replace(report, selected_on="test")
    assert marked.as_json()["selected_on"] == "test"
    assert "val holds test images: all was selected on test." in marked.markdown().splitlines()[5]
    assert "all was selected on test" in " ".join(printed(marked, 80).split())
    assert "selected on test" not in report.markdown() + printed(report, 80)


@pytest.mark.parametrize("width", [60, 80, 110, 120, 140])
def test_table_fits_the_terminal(report: Report, width: int) -> None:
    text = printed(report, width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    champion = next(line for line in text.splitlines() if "★" in line)
    assert champion.split()[0] == "tau_norm"
    assert ("100–100" in text) == (width >= 80)
    assert "6 test images in 3 classes (many 1, medium 1, few 1)" in " ".join(text.split())


def test_table_where_only_ascii_can_be_written(report: Report) -> None:
    assert "tau_norm *" in printed(report, 80, "ascii")


def test_markdown_escapes_and_says_what_it_shows(report: Report) -> None:
    lines = report.markdown().splitlines()
    assert lines[0] == "| variant | many | medium | few | all | balanced | macro F1 | p |"
    assert lines[3].startswith("| tau_norm ★ | 100.0 (100–100) | 100.0 (100–100) |")
    assert lines[3].endswith("| 0.500 |")
    assert "Holm" in lines[5]
    assert lines[5].endswith("★ champion by balanced accuracy on val (best in 62 % of resamples of val).")
    assert lines[7] == "| variant | NLL | ECE | class-wise ECE | AURC |"


def test_metrics_for_the_tracking(report: Report) -> None:
    told = report.metrics("joint")
    assert told["best_on_val"] == 0.375
    assert told["nll"] == report.results["joint"].calibration.figures["nll"]


def test_selected_on_test_if_any_image_is_shared() -> None:
    assert selected_on({"a.png", "b.png"}, {"c.png"}) == "val"
    assert selected_on({"a.png", "b.png"}, {"b.png", "c.png"}) == "test"
    assert selected_on(frozenset(), {"c.png"}) == "val"
