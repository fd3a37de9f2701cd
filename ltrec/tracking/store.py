"""Where MLflow's store is: the server that the environment names, or a database in the project's root."""

from __future__ import annotations

import os
import socket
import urllib.request
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ltrec import project

if TYPE_CHECKING:
    from pathlib import Path

_KNOCK_SECONDS = 3.0


def tracking_uri() -> str:
    """Return MLFLOW_TRACKING_URI, else `mlflow.db` in the project's root, which `mlflow ui` finds there by itself."""
    return os.environ.get("MLFLOW_TRACKING_URI") or _own_uri()


def shown_uri() -> str:
    """Return the URI without a password."""
    uri = tracking_uri()
    secret = urlsplit(uri).password
    return uri.replace(f":{secret}@", ":***@", 1) if secret else uri


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


def knock() -> None:
    """See whether anybody listens, which spares the import of MLflow if nobody does.

    Raises:
        OSError: nobody does.
    """
    parts = urlsplit(tracking_uri())
    if not is_server() or not parts.hostname:
        return
    if parts.scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(parts.hostname):
        return
    address = parts.hostname, parts.port or {"http": 80, "https": 443}[parts.scheme]
    socket.create_connection(address, timeout=_KNOCK_SECONDS).close()


def upload_seconds(file: Path) -> float:
    """Return how long the slowest store that is worth waiting for takes to receive a file."""
    return 30 + file.stat().st_size / 1e6


def _own_uri() -> str:
    return f"sqlite:///{database()}"
