"""A project that was moved, renamed or copied, and the store in it."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ltrec.errors import UserError
from ltrec.tracking import moving
from tests.tracking.conftest import Project
from tests.tracking.test_model import write_model

if TYPE_CHECKING:
    from collections.abc import Callable

TABLES = {
    "experiments": "artifact_location",
    "runs": "artifact_uri",
    "logged_models": "artifact_location",
    "model_versions": "storage_location",
}


def build(database: Path, **places: list[str | None]) -> None:
    """Write a store's tables with nothing but the places of files."""
    with closing(sqlite3.connect(database)) as store:
        for table, column in TABLES.items():
            store.execute(f"CREATE TABLE {table} ({column} TEXT)")
            rows = [(place,) for place in places.get(table, [])]
            store.executemany(f"INSERT INTO {table} VALUES (?)", rows)  # noqa: S608
        store.commit()


def places(database: Path) -> dict[str, list[str | None]]:
    with closing(sqlite3.connect(database)) as store:
        return {table: [row[0] for row in store.execute(f"SELECT * FROM {table}")] for table in TABLES}  # noqa: S608


@pytest.fixture
def here(empty_project: Project) -> Path:
    """The folder of a project without a store; its name has a space."""
    return empty_project.folder


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """A folder with no project, whose name is written otherwise in a URI."""
    return tmp_path / "ältere Projekte" / "a%b"


def test_every_place_below_the_old_one_follows(here: Path, there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = f"{there.as_uri()}/mlruns"
    kept = ["s3://bucket/mlruns/1", "file:///a/disk/mlruns2/1", f"{old}2/1", None]
    build(
        here / "mlflow.db",
        experiments=[old, f"{there}/mlruns/0", *kept],
        runs=[f"{old}/1a/artifacts", *kept],
        logged_models=[f"{old}/models/m-1/artifacts", *kept],
        model_versions=["models:/m-1", f"{old}/models/m-1/artifacts", *kept],
    )
    moving.follow()
    new = f"{here.as_uri()}/mlruns"
    assert places(here / "mlflow.db") == {
        "experiments": [new, f"{here}/mlruns/0", *kept],
        "runs": [f"{new}/1a/artifacts", *kept],
        "logged_models": [f"{new}/models/m-1/artifacts", *kept],
        "model_versions": ["models:/m-1", f"{new}/models/m-1/artifacts", *kept],
    }
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"the project was moved or copied from {there}" in said
    moving.follow()
    assert capsys.readouterr().err == ""


def test_several_old_places_follow(here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build(here / "mlflow.db", experiments=[f"{(tmp_path / name).as_uri()}/mlruns" for name in ("one", "two")])
    moving.follow()
    assert places(here / "mlflow.db")["experiments"] == [f"{here.as_uri()}/mlruns"] * 2
    assert capsys.readouterr().err.count("moved or copied from") == 2


def test_files_that_are_at_the_old_place_alone_are_still_found_there(here: Path, there: Path) -> None:
    """As after copying the database without its files."""
    old, new = (f"{folder.as_uri()}/mlruns" for folder in (there, here))
    for folder in (there / "mlruns/there", there / "mlruns/both", here / "mlruns/both"):
        folder.mkdir(parents=True)
    build(here / "mlflow.db", experiments=[old], runs=[f"{old}/{name}" for name in ("there", "both", "neither")])
    moving.follow()
    assert places(here / "mlflow.db")["experiments"] == [new]
    assert places(here / "mlflow.db")["runs"] == [f"{old}/there", f"{new}/both", f"{new}/neither"]


def link_the_store(here: Path, there: Path) -> None:
    there.mkdir(parents=True)
    shutil.move(here / "mlflow.db", there / "mlflow.db")
    (here / "mlflow.db").symlink_to(there / "mlflow.db")


def link_the_old_place(here: Path, there: Path) -> None:
    """As who moved the project may have mended it by hand."""
    (here / "mlruns").mkdir()
    there.mkdir(parents=True)
    (there / "mlruns").symlink_to(here / "mlruns")


@pytest.mark.parametrize("link", [link_the_store, link_the_old_place])
def test_what_is_no_moved_store_of_the_project_is_left_alone(
    link: Callable[[Path, Path], None], here: Path, there: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build(here / "mlflow.db", experiments=[f"{there.as_uri()}/mlruns"])
    link(here, there)
    moving.follow()
    assert places(here / "mlflow.db")["experiments"] == [f"{there.as_uri()}/mlruns"]
    assert capsys.readouterr().err == ""


def test_a_store_that_the_environment_names_is_left_alone(
    here: Path, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(here / "mlflow.db", experiments=[f"{there.as_uri()}/mlruns"])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    moving.follow()
    assert places(here / "mlflow.db")["experiments"] == [f"{there.as_uri()}/mlruns"]


def test_a_store_without_tables_or_that_is_a_folder_is_nobodys_move(here: Path) -> None:
    moving.follow()
    assert not (here / "mlflow.db").exists()
    (here / "mlflow.db").touch()
    moving.follow()
    (here / "mlflow.db").unlink()
    (here / "mlflow.db").mkdir()
    moving.follow()


def test_all_or_nothing_and_one_line(here: Path, there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(here / "mlflow.db", experiments=[f"{there.as_uri()}/mlruns"], runs=[f"{there.as_uri()}/mlruns/1"])
    before = places(here / "mlflow.db")
    monkeypatch.setattr(moving, "_PATIENCE", 0.1)
    with closing(sqlite3.connect(here / "mlflow.db")) as other:
        other.execute("CREATE TRIGGER full BEFORE UPDATE ON runs BEGIN SELECT RAISE(ABORT, 'disk full'); END")
        other.commit()
        with pytest.raises(UserError, match="disk full"):
            moving.follow()
        assert places(here / "mlflow.db") == before
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(UserError, match="locked"):
            moving.follow()
    (here / "mlflow.db").write_text("no database", encoding="utf-8")
    with pytest.raises(UserError, match="not a database") as told:
        moving.follow()
    assert str(here / "mlflow.db") in str(told.value)


EXPORT = """
with recording.stage_run(params, "export") as run:
    run.model(Path("model.onnx"))
"""
LATER = """
with recording.stage_run(params, "evaluate") as run:
    run.file(Path("later.md"))
"""
# The champion is loaded where it is used: in another process, by MLflow alone.
LOAD = """
import mlflow
mlflow.set_tracking_uri("sqlite:///mlflow.db")
mlflow.pyfunc.load_model("models:/ltrec@champion")
client = mlflow.MlflowClient()
(run,) = client.search_runs([client.get_experiment_by_name("ltrec").experiment_id])
print([file.path for file in client.list_artifacts(run.info.run_id)])
"""


def load(folder: Path) -> str:
    """Load the champion and return what the run's files are."""
    done = subprocess.run([sys.executable, "-c", LOAD], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def contents(folder: Path) -> dict[Path, bytes]:
    """All files but those of a process that sends, which goes a moment later."""
    files = (file for file in folder.rglob("*") if file.is_file() and ".senders" not in file.parts)
    return {file: file.read_bytes() for file in files}


@pytest.mark.slow
@pytest.mark.parametrize(("relocate", "first"), [(shutil.move, "sync"), (shutil.copytree, "a stage")])
def test_the_first_command_elsewhere_finds_files_and_models(
    relocate: Callable[[Path, Path], object], first: str, project: Project, tmp_path: Path
) -> None:
    write_model(project.folder / "model.onnx", 0.01)
    (project.folder / "later.md").write_text("before", encoding="utf-8")
    assert project.python(LATER + EXPORT) == ""
    new = tmp_path / "another place" / "é"
    new.parent.mkdir()
    relocate(project.folder, new)
    moved, old = Project(new), project.folder
    before = contents(old)

    said = moved.python("tracking.sync()" if first == "sync" else EXPORT)
    assert f"the project was moved or copied from {old}" in said
    assert said.count("\n") == (2 if first == "sync" else 1)
    assert load(new) == "['later.md']"
    assert moved.python("tracking.sync()") == "sync: no run is waiting to be sent\n"

    (new / "later.md").write_text("after", encoding="utf-8")
    assert moved.python(LATER) == ""
    (found,) = (new / "mlruns").rglob("later.md")
    assert found.read_text(encoding="utf-8") == "after"
    assert contents(old) == before
    assert old.exists() == (relocate is shutil.copytree)


@pytest.mark.slow
def test_ltrec_sync_says_it_in_one_line(here: Path, there: Path) -> None:
    build(here / "mlflow.db", experiments=[f"{there.as_uri()}/mlruns"])
    command = [str(Path(sys.executable).parent / "ltrec"), "sync"]
    done = subprocess.run(command, cwd=here, check=True, capture_output=True, text=True, env=os.environ)
    assert done.stderr.splitlines() == [
        f"the project was moved or copied from {there}: MLflow now looks for its files here",
        "sync: no run is waiting to be sent",
    ]
    (here / "mlflow.db").write_text("no database", encoding="utf-8")
    done = subprocess.run(command, cwd=here, check=False, capture_output=True, text=True, env=os.environ)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
