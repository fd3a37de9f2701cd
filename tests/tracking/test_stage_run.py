"""Runs as MLflow's own database in the project shows them."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from ltrec.stages import recording
from ltrec.tracking.records import Record

if TYPE_CHECKING:
    from tests.tracking.conftest import Project

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("sent_here")]


def test_a_parent_with_the_representation_and_the_variants_below(project: Project) -> None:
    params = project.params()
    with recording.stage_run(params, "represent") as run:
        run.history([{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25}], "represent")
    for variant in ("joint", "crt"):
        with recording.stage_run(params, "rebalance", variant=variant) as run:
            run.params({"rebalance": {"lr": 0.1}})
            run.metrics({"many": 0.75, "few": None})
    assert sorted(project.runs().values()) == ["FINISHED", "FINISHED", "FINISHED", "RUNNING"]
    with recording.stage_run(params, "evaluate") as run:
        run.tags({"champion": "crt"})

    ids = dict(project.ask("SELECT name, run_uuid FROM runs"))
    (parent,) = [name for name in ids if name.startswith("pipeline ")]
    assert set(ids) == {parent, "represent", "joint", "crt"}
    for name in ("represent", "joint", "crt"):
        assert project.tags(name)["mlflow.parentRunId"] == ids[parent]
    assert "mlflow.parentRunId" not in project.tags(parent)
    assert set(project.runs().values()) == {"FINISHED"}
    assert project.curve("represent/loss") == [(1, 0.5), (2, 0.25)]
    assert project.curve("many") == [(0, 0.75), (0, 0.75)]
    assert project.curve("few") == []
    assert project.ask("SELECT DISTINCT key, value FROM params") == [("rebalance.lr", "0.1")]
    assert project.records() == []


def test_tags(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_EXP_NAME", "puffy-daps")
    identity = ("-c", "user.name=a", "-c", "user.email=a@b")
    for command in (["init"], ["add", "params.yaml"], [*identity, "commit", "--message", "one"]):
        subprocess.run(["git", *command], check=True, capture_output=True)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    (project.folder / "dvc.lock").write_bytes(b"")
    with recording.stage_run(project.params(), "rebalance", variant="crt"):
        pass
    (parent,) = [name for name in project.runs() if name.startswith("puffy-daps ")]
    tags = project.tags("crt")
    assert tags["mlflow.source.git.commit"] == commit
    assert tags["ltrec.dirty"] == "false"
    assert tags["ltrec.dataset"] == "of-the-images"
    assert len(tags["ltrec.dvc_lock"]) == 64
    assert (tags["ltrec.stage"], tags["ltrec.variant"]) == ("rebalance", "crt")
    assert tags["ltrec.experiment"] == "puffy-daps"
    assert project.tags(parent)["mlflow.source.git.commit"] == commit
    assert project.tags(parent)["ltrec.stage"] == "pipeline"


def test_the_same_again_doubles_nothing(project: Project) -> None:
    params = project.params()
    for _ in range(2):
        with recording.stage_run(params, "represent") as run:
            run.params({"lr": 0.1})
            run.history([{"epoch": 1, "loss": 0.5}], "represent")
            run.metrics({"seconds": 3.0})
    before = project.ask("SELECT run_uuid, start_time, end_time FROM runs")
    with recording.stage_run(params, "represent") as run:
        run.history([{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25}], "represent")
        run.params({"lr": 0.2})
        run.metrics({"seconds": 4.0})
    assert project.curve("represent/loss") == [(1, 0.5), (2, 0.25)]
    assert project.ask("SELECT value FROM latest_metrics WHERE key = 'seconds'") == [(4.0,)]
    # A param stays what it was first; the change is told all the same.
    assert project.ask("SELECT value FROM params") == [("0.1",)]
    assert project.tags("represent")["lr"] == "0.2"
    # What was finished keeps its times when more is told about it.
    assert project.ask("SELECT run_uuid, start_time, end_time FROM runs") == before


def test_a_resumed_run_has_one_line_of_each_kind(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter(range(1_000_000, 2_000_000, 10))
    monkeypatch.setattr("time.time", lambda: float(next(seconds)))
    for epochs in ((1, 2), (1, 2, 3)):
        with recording.stage_run(project.params(), "represent") as run:
            assert isinstance(run, Record)
            for epoch in epochs:
                run.metrics({"loss": 1 / epoch}, step=epoch)
                run.sample({"cpu": 5.0})
            run.metrics({"nothing": float("nan")})
    monkeypatch.undo()
    assert project.curve("loss") == [(epoch, 1 / epoch) for epoch in (1, 2, 3)]
    samples = project.curve("system/cpu")
    assert len(samples) == len(set(samples)) == 5
    assert len(project.curve("nothing")) == 1


def test_many_metrics_params_and_tags(project: Project) -> None:
    """More than MLflow takes in one request."""
    with recording.stage_run(project.params(), "represent") as run:
        run.params({f"param {number}": number for number in range(250)})
        run.tags({f"tag {number}": number for number in range(250)})
        for step in range(1500):
            run.metrics({"loss": 1.0}, step=step)
    assert len(project.curve("loss")) == 1500
    assert project.ask("SELECT count(*) FROM params") == [(250,)]
    assert len([name for name in project.tags("represent") if name.startswith("tag ")]) == 250


def test_what_does_not_decide_the_comparison_leaves_the_state(project: Project) -> None:
    params = project.params()
    with recording.stage_run(params, "evaluate"):
        pass
    export = params.export.model_copy(update={"precision": "fp16"})
    with recording.stage_run(params.model_copy(update={"export": export, "device": "cpu"}), "evaluate"):
        pass
    assert len(project.runs()) == 1
    with recording.stage_run(params.model_copy(update={"seed": 1}), "evaluate"):
        pass
    assert len(project.runs()) == 2
    (project.folder / "artifacts/prepare/stats.json").write_text('{"digest": "of-other-images"}', encoding="utf-8")
    with recording.stage_run(params, "evaluate"):
        pass
    assert len(project.runs()) == 3


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED"), (SystemExit, "KILLED")]
)
def test_the_pipeline_fails_with_its_stage_and_recovers(
    error: type[BaseException], status: str, project: Project
) -> None:
    def fail() -> None:
        with recording.stage_run(project.params(), "represent") as run:
            run.metrics({"represent/loss": 0.5}, step=1)
            raise error

    with pytest.raises(error):
        fail()
    assert set(project.runs().values()) == {status}
    with recording.stage_run(project.params(), "represent") as run:
        run.metrics({"represent/loss": 0.4}, step=1)
    with recording.stage_run(project.params(), "evaluate"):
        pass
    assert set(project.runs().values()) == {"FINISHED"}
    assert project.curve("represent/loss") == [(1, 0.5)]


def test_files_go_to_the_project(project: Project) -> None:
    (project.folder / "table.md").write_text("a table", encoding="utf-8")
    with recording.stage_run(project.params(), "evaluate") as run:
        run.file(project.folder / "table.md", "tables")
    (found,) = (project.folder / "mlruns").rglob("table.md")
    assert found.read_text(encoding="utf-8") == "a table"
    assert found.parent.name == "tables"


def test_an_experiment_named_by_the_environment(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "elsewhere")
    with recording.stage_run(project.params(), "evaluate"):
        pass
    assert ("elsewhere",) in project.ask("SELECT name FROM experiments")


def test_a_deleted_run_is_made_anew(project: Project) -> None:
    from mlflow import MlflowClient

    with recording.stage_run(project.params(), "represent"):
        pass
    client = MlflowClient(f"sqlite:///{project.folder}/mlflow.db")
    for (run_id,) in project.ask("SELECT run_uuid FROM runs WHERE name LIKE 'pipeline %'"):
        client.delete_run(run_id)
    with recording.stage_run(project.params(), "represent"):
        pass
    (alive,) = project.ask("SELECT run_uuid FROM runs WHERE name LIKE 'pipeline %' AND lifecycle_stage = 'active'")
    assert project.tags("represent")["mlflow.parentRunId"] == alive[0]


def test_two_that_tell_of_the_same_run_at_once_are_both_recorded(project: Project) -> None:
    with recording.stage_run(project.params(), "represent") as first:
        first.metrics({"loss": 1.0}, step=1)
        with recording.stage_run(project.params(), "represent") as second:
            second.metrics({"loss": 2.0}, step=2)
            second.metrics({"test": 0.5})
    assert project.curve("loss") == [(1, 1.0), (2, 2.0)]
    assert project.curve("test") == [(0, 0.5)]
    assert set(project.runs().values()) == {"FINISHED", "RUNNING"}
    assert project.records() == []


def test_without_tracking_nothing_is_imported_or_written(empty_project: Project) -> None:
    empty_project.python(
        """
        off = params.model_copy(update={"tracking": params.tracking.model_copy(update={"enabled": False})})
        with recording.stage_run(off, "represent") as run:
            run.params({"a": 1})
            run.metrics({"a": 1.0}, step=1)
            run.tags({"a": "b"})
            run.file(Path("params.yaml"))
            run.model(Path("params.yaml"))
        assert "mlflow" not in sys.modules
        """
    )
    assert sorted(path.name for path in empty_project.folder.iterdir()) == ["artifacts", "params.yaml"]


def test_a_folder_that_cannot_be_written_costs_one_line(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    (project.folder / ".ltrec").write_text("a file where a folder should be", encoding="utf-8")
    with recording.stage_run(project.params(), "represent") as run:
        run.metrics({"a": 1.0})
    said = capsys.readouterr().err
    assert said.count("warning") == 1
    assert "represent: not recorded for MLflow" in said
