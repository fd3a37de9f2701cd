"""Where MLflow's store is: the server that the environment names, or a database in the project's root."""

from __future__ import annotations

import contextlib
import http.client
import os
import sqlite3
import ssl
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from ltrec import project
from ltrec.tracking.masking import masked

_BUSY_SECONDS = 2.0


def tracking_uri() -> str:
    """Return MLFLOW_TRACKING_URI, else `mlflow.db` in the project's root, which `mlflow ui` finds there by itself."""
    return os.environ.get("MLFLOW_TRACKING_URI") or _own_uri()


def shown_uri() -> str:
    """Return the URI without user info and query."""
    return masked(tracking_uri())


def database() -> Path:
    return project.root() / "mlflow.db"


def artifact_root() -> Path:
    return project.root() / "mlruns"


def is_local() -> bool:
    """Return True if the store is the project's own database."""
    return tracking_uri() == _own_uri()


def is_server() -> bool:
    return urlsplit(tracking_uri()).scheme in {"http", "https"}


def prepare_environment() -> None:
    """Set what MLflow reads from the environment; the user's own values stay."""
    os.environ["MLFLOW_TRACKING_URI"] = tracking_uri()
    # Its own defaults block a call to a dead server for four minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")


def knock(patience: float) -> None:
    """See whether the store answers at all, which spares the import of MLflow and its many attempts if it does not.

    Args:
        patience: Seconds that a server has to say anything.

    Raises:
        OSError: the server does not answer, or the database's place cannot be used.
        sqlite3.Error: the database is locked, damaged, or cannot be written.
    """
    if is_server():
        _knock_at_server(patience)
    elif tracking_uri().startswith("sqlite:///"):
        _knock_at_database(Path(tracking_uri().removeprefix("sqlite:///").partition("?")[0]))


def _knock_at_server(patience: float) -> None:
    parts = urlsplit(tracking_uri())
    if not parts.hostname:
        return
    proxies = urllib.request.getproxies().keys() & {parts.scheme, "all"}
    if proxies and not urllib.request.proxy_bypass(parts.hostname):
        return
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    with contextlib.closing(kind(parts.hostname, parts.port, timeout=patience)) as connection:
        try:
            connection.request("GET", f"{parts.path.rstrip('/')}/health")
            connection.getresponse()
        except TimeoutError:
            raise TimeoutError(f"no answer within {patience:g} s") from None
        except (http.client.HTTPException, ssl.SSLError):
            pass  # somebody is there: what it wants is MLflow's matter


def _knock_at_database(path: Path) -> None:
    """Begin to write, and take it back."""
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; a database is wanted there")
    with contextlib.closing(sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)) as database:
        database.execute("BEGIN IMMEDIATE")
        database.execute("ROLLBACK")


def upload_seconds(file: Path) -> float:
    """Return how long the slowest store that is worth waiting for takes to receive a file."""
    return 30 + file.stat().st_size / 1e6


def _own_uri() -> str:
    return f"sqlite:///{database()}"
