from __future__ import annotations

import shutil
import socket
from typing import TYPE_CHECKING

import pytest

from ltrec.stages import recording
from ltrec.tracking import store
from tests.tracking.conftest import Project

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_the_environment_names_the_store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert store.tracking_uri() == f"sqlite:///{tmp_path}/mlflow.db"
    assert store.is_local()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:secret@host:5000/path")
    assert store.tracking_uri() == "https://me:secret@host:5000/path"
    assert store.shown_uri() == "https://me:***@host:5000/path"
    assert not store.is_local()


def test_knocking(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.getsockname()[1]}")
        store.knock()
    with pytest.raises(ConnectionRefusedError):
        store.knock()
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "")
    store.knock()  # only the proxy knows
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://127.0.0.1:1/db")
    store.knock()  # not over HTTP: MLflow's matter


@pytest.mark.parametrize("relocate", [shutil.move, shutil.copytree], ids=["moved", "copied"])
def test_a_project_elsewhere_writes_there(
    relocate: Callable[[Path, Path], object], project: Project, tmp_path: Path
) -> None:
    table = project.folder / "table.md"
    table.write_text("before", encoding="utf-8")
    with recording.stage_run(project.params(), "evaluate") as run:
        run.file(table)
    new = tmp_path / "another place" / "é"
    new.parent.mkdir()
    relocate(project.folder, new)
    (new / "later.md").write_text("after", encoding="utf-8")
    moved = Project(new)
    moved.python(
        """
        with recording.stage_run(params, "evaluate") as run:
            run.file(Path("later.md"))
        """
    )

    (artifacts,) = {path.parent for path in (new / "mlruns").rglob("*.md")}
    assert {path.name for path in artifacts.iterdir()} == {"table.md", "later.md"}
    old = {path.name for path in project.folder.glob("mlruns/*/artifacts/*")}
    assert old == ({"table.md"} if relocate is shutil.copytree else set())
    locations = moved.ask("SELECT artifact_location FROM experiments UNION SELECT artifact_uri FROM runs")
    assert len(locations) == 3
    assert not [location for (location,) in locations if "my%20project" in location or "my project" in location]


def test_only_own_locations_follow_a_move(project: Project) -> None:
    from mlflow import MlflowClient

    with recording.stage_run(project.params(), "evaluate"):
        pass
    MlflowClient(f"sqlite:///{project.folder}/mlflow.db").create_experiment("other", "s3://bucket/mlruns")
    before = project.ask("SELECT * FROM experiments")
    store.follow_a_move()
    assert project.ask("SELECT * FROM experiments") == before
