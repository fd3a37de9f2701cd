from __future__ import annotations

import re
import socket
import sqlite3
import threading
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING

import pytest

from ltrec.tracking import store

if TYPE_CHECKING:
    from pathlib import Path

    from tests.tracking.conftest import Project


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
