"""The main job through the real commands: from images to an exported champion, and only what changed again."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.pipeline.checkout import stages_run

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.pipeline.checkout import Project

pytestmark = pytest.mark.slow
VARIANTS = ["joint", "crt", "tau_norm"]


def test_without_data_dvc_says_so(checkout: Callable[[str], Project]) -> None:
    project = checkout("bare")
    assert "missing data 'source': data" in project.run("dvc", "repro", code=255)
    assert not (project.folder / "artifacts").exists()


def test_the_whole_way(repeated: tuple[Project, str]) -> None:
    project, output = repeated
    assert stages_run(output) == [
        "prepare", "represent", "featurize", *(f"rebalance@{name}" for name in VARIANTS), "evaluate", "export",
    ]  # fmt: skip
    assert "macro F1" in output
    metrics = json.loads(project.read("artifacts/evaluate/metrics.json"))
    assert set(metrics) == {*VARIANTS, "champion", "champion_doubt", "selected_on", "test_set"}
    # The committed data.dvc is what `ltrec data digits` writes.
    assert "data.dvc" not in project.run("git", "status", "--porcelain")
    assert "up to date" in project.run("dvc", "status")


def test_nothing_again(repeated: tuple[Project, str]) -> None:
    assert stages_run(repeated[0].run("dvc", "repro")) == []


def test_the_exported_file_predicts(repeated: tuple[Project, str]) -> None:
    project, _ = repeated
    answers = json.loads(project.run("ltrec", "predict", "--format", "json", "data/0"))
    assert len(answers) == 178
    # Class 0 is the most frequent one; even a short training knows it.
    assert sum(answer["class"] == "0" for answer in answers) > 150


def test_mlflow_holds_a_parent_and_its_children(repeated: tuple[Project, str]) -> None:
    project, _ = repeated
    with closing(sqlite3.connect(project.folder / "mlflow.db")) as store:
        runs = dict(store.execute("SELECT run_uuid, name FROM runs"))
        parents = dict(store.execute("SELECT run_uuid, value FROM tags WHERE key = 'mlflow.parentRunId'"))
        few = {runs[run] for (run,) in store.execute("SELECT run_uuid FROM latest_metrics WHERE key = 'few'")}
        statuses = {status for (status,) in store.execute("SELECT status FROM runs")}
        alias = store.execute("SELECT name, alias FROM registered_model_aliases").fetchall()
    assert sorted(runs[run] for run in parents) == sorted([*VARIANTS, "represent"])
    assert len(set(parents.values())) == 1
    assert set(VARIANTS) <= few
    assert statuses == {"FINISHED"}
    assert alias == [("ltrec", "champion")]


def test_another_setting_and_a_new_variant_rerun_these_alone(repeated: tuple[Project, str]) -> None:
    project, _ = repeated
    # Importing MLflow takes longer than these stages.
    project.set({"tracking.enabled": False})
    project.set({"rebalance.crt.lr": 0.05, "rebalance.tau_half": {"method": "tau_norm", "taus": [0.5]}})
    assert stages_run(project.run("dvc", "repro")) == ["rebalance@crt", "rebalance@tau_half", "evaluate", "export"]
    assert "rebalance/crt/metrics.json" in project.run("dvc", "metrics", "diff")


def test_a_variant_that_is_gone_leaves_nothing(repeated: tuple[Project, str]) -> None:
    project, _ = repeated
    project.set({"rebalance.tau_half": None})
    output = project.run("dvc", "repro", "evaluate")
    assert stages_run(output) == ["evaluate"]
    assert "removed artifacts/rebalance/tau_half" in output
    assert not (project.folder / "artifacts/rebalance/tau_half").exists()


def test_a_plots_look_trains_nothing(repeated: tuple[Project, str]) -> None:
    project, _ = repeated
    project.set({"evaluate.plots.dpi": 60})
    assert stages_run(project.run("dvc", "repro", "evaluate")) == ["evaluate"]


def test_a_junk_file_trains_nothing(repeated: tuple[Project, str]) -> None:
    project, _ = repeated
    (project.folder / "data/0/notes.jpg").write_text("no image", encoding="utf-8")
    output = project.run("dvc", "repro", "evaluate")
    assert stages_run(output) == ["prepare"]
    assert "0/notes.jpg (not an image)" in output
    (project.folder / "data/0/notes.jpg").unlink()


def test_a_renamed_class_trains_nothing(repeated: tuple[Project, str]) -> None:
    project, _ = repeated
    project.run("dvc", "repro")
    lists = [project.read(f"artifacts/prepare/{split}.txt") for split in ("train", "val", "test")]
    data = project.folder / "data"
    (data / "7").rename(data / "7 of seven")
    assert stages_run(project.run("dvc", "repro")) == ["prepare", "evaluate", "export"]
    renamed = [project.read(f"artifacts/prepare/{split}.txt") for split in ("train", "val", "test")]
    assert renamed == [text.replace(b"7/", b"7 of seven/") for text in lists]
    answers = json.loads(project.run("ltrec", "predict", "--format", "json", "data/7 of seven"))
    assert sum(answer["class"] == "7 of seven" for answer in answers) > 50
    (data / "7 of seven").rename(data / "7")


def test_names_train_nothing(repeated: tuple[Project, str]) -> None:
    project, _ = repeated
    project.set({"prepare.source.names": {"0": "zero", "1": "one"}})
    assert stages_run(project.run("dvc", "repro")) == ["prepare", "evaluate", "export"]
    assert b"\none\n" in project.read("artifacts/prepare/classes.txt")
    project.set({"prepare.source.names": None})


def test_an_experiment_in_a_folder_of_its_own(repeated: tuple[Project, str]) -> None:
    project, _ = repeated
    project.set({"tracking.enabled": True})
    project.commit("before the experiment")
    project.run("dvc", "exp", "run", "--temp", "-S", "rebalance.crt.lr=0.07", "rebalance@crt")
    assert "0.07" in project.run("dvc", "exp", "show", "--csv")
    with closing(sqlite3.connect(project.folder / "mlflow.db")) as store:
        rates = {value for (value,) in store.execute("SELECT value FROM params WHERE key = 'rebalance.lr'")}
    assert "0.07" in rates
