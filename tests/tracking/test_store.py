from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from ltrec.tracking import store

if TYPE_CHECKING:
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
