from __future__ import annotations

import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ltrec.tracking import store
from tests.tracking.conftest import Project
from tests.tracking.test_model import write_model

if TYPE_CHECKING:
    from collections.abc import Callable


EXPORT = """
with recording.stage_run(params, "export") as run:
    run.model(Path("model.onnx"))
"""


def test_the_environment_names_the_store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert store.tracking_uri() == f"sqlite:///{tmp_path}/mlflow.db"
    assert store.is_local()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:secret@host:5000/path")
    assert store.tracking_uri() == "https://me:secret@host:5000/path"
    assert store.shown_uri() == "https://***@host:5000/path"
    assert not store.is_local()


@pytest.fixture
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("_no_proxies")
def test_knocking_at_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unwilling(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(401)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Unwilling) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{server.server_port}/path")
        store.knock(5.0)  # somebody is there, whatever they want
        thread.join()
    with pytest.raises(ConnectionRefusedError):
        store.knock(5.0)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "")
    store.knock(5.0)  # only the proxy knows
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://127.0.0.1:1/db")
    store.knock(5.0)  # not over HTTP: MLflow's matter


@pytest.mark.usefixtures("_no_proxies")
def test_knocking_at_a_server_that_accepts_and_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{mute.getsockname()[1]}")
        with pytest.raises(TimeoutError, match=r"^no answer within 0.1 s$"):
            store.knock(0.1)


def test_knocking_at_a_database(empty_project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_BUSY_SECONDS", 0.1)
    database = empty_project.folder / "mlflow.db"
    store.knock(5.0)
    store.knock(5.0)
    with closing(sqlite3.connect(database, isolation_level=None)) as held:
        held.execute("BEGIN IMMEDIATE")
        with pytest.raises(sqlite3.OperationalError, match="database is locked"):
            store.knock(5.0)
    database.write_text("text" * 1000, encoding="utf-8")
    with pytest.raises(sqlite3.DatabaseError, match="file is not a database"):
        store.knock(5.0)
    database.unlink()
    database.mkdir()
    with pytest.raises(IsADirectoryError, match=re.escape(f"{database} is a folder")):
        store.knock(5.0)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{empty_project.folder}/nowhere/x.db?timeout=1")
    with pytest.raises(sqlite3.OperationalError, match="unable to open database file"):
        store.knock(5.0)


def test_only_the_folder_of_another_project_is_elsewhere(empty_project: Project, tmp_path: Path) -> None:
    here = empty_project.folder / "mlruns"
    (tmp_path / "link").symlink_to(empty_project.folder)
    assert not store.is_elsewhere(here.as_uri())
    assert not store.is_elsewhere((tmp_path / "link/mlruns").as_uri())
    assert not store.is_elsewhere("s3://bucket/mlruns")
    assert not store.is_elsewhere("file:///a/disk/for/artifacts")
    assert store.is_elsewhere("file:///another%20place/mlruns")


# The champion is loaded where it is used: in another process, by MLflow alone.
LOAD = """
import sys
import mlflow
mlflow.set_tracking_uri("sqlite:///mlflow.db")
mlflow.pyfunc.load_model("models:/ltrec@champion")
"""


@pytest.mark.slow
@pytest.mark.parametrize("relocate", [shutil.move, shutil.copytree], ids=["moved", "copied"])
def test_a_project_elsewhere_says_what_mends_it(
    relocate: Callable[[Path, Path], object], project: Project, tmp_path: Path
) -> None:
    write_model(project.folder / "model.onnx", 0.01)
    assert project.python(EXPORT) == ""
    new = tmp_path / "another place" / "é"
    new.parent.mkdir()
    relocate(project.folder, new)
    moved, old = Project(new), project.folder
    before = sorted(old.rglob("*"))

    for said in (moved.python("tracking.sync()"), moved.python(EXPORT)):
        assert said.count("warning") == 1, said
        assert str(old) in said
    assert sorted(old.rglob("*")) == before
    assert moved.records() == ["export"]

    # What ltrec says between backticks, line by line; `ltrec export` stands for the stage of this test.
    commands = re.findall("`([^`]*)`", said.partition("; what it lacks")[0])
    assert 1 <= len(commands) <= 2
    for command in commands:
        if command.startswith("ltrec "):
            assert command == "ltrec evaluate && ltrec export"
            moved.python(EXPORT)
        else:
            path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
            done = subprocess.run(
                ["sh", "-c", command], check=False, capture_output=True, env=os.environ | {"PATH": path}
            )
            assert done.returncode == 0, done.stderr
    assert moved.python("tracking.sync()").startswith("sync: ")
    assert moved.records() == []
    subprocess.run([sys.executable, "-c", LOAD], cwd=new, check=True, capture_output=True)
    (new / "later.md").write_text("after", encoding="utf-8")
    assert moved.python("with recording.stage_run(params, 'evaluate') as run: run.file(Path('later.md'))") == ""
    assert len(list((new / "mlruns").rglob("later.md"))) == 1
    if relocate is shutil.copytree:
        assert sorted(old.rglob("*")) == before
