"""Where MLflow's store is: the server that the environment names, or a database in the project's root."""

from __future__ import annotations

import contextlib
import os
import socket
import sqlite3
import urllib.request
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ltrec import project

# Where MLflow writes absolute artifact locations into its database.
_LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
_KNOCK_SECONDS = 3.0


def tracking_uri() -> str:
    """MLFLOW_TRACKING_URI, else `mlflow.db` in the project's root, which `mlflow ui` finds there by itself."""
    return os.environ.get("MLFLOW_TRACKING_URI") or _own_uri()


def shown_uri() -> str:
    """The URI without a password."""
    uri = tracking_uri()
    secret = urlsplit(uri).password
    return uri.replace(f":{secret}@", ":***@", 1) if secret else uri


def database() -> Path:
    return project.root() / "mlflow.db"


def artifact_root() -> Path:
    return project.root() / "mlruns"


def is_local() -> bool:
    """True if the store is the project's own database."""
    return tracking_uri() == _own_uri()


def prepare_environment() -> None:
    """What MLflow reads from the environment when it is imported or called; the user's own values stay."""
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
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        return
    if parts.scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(parts.hostname):
        return
    address = parts.hostname, parts.port or {"http": 80, "https": 443}[parts.scheme]
    socket.create_connection(address, timeout=_KNOCK_SECONDS).close()


def follow_a_move() -> None:
    """Correct the absolute locations in the project's database if the project was moved or copied."""
    if not database().is_file():
        return
    here = artifact_root()
    with contextlib.closing(sqlite3.connect(database())) as connection, connection:
        for before in _former_roots(connection) - {here}:
            for table, column in _LOCATIONS:
                # Runs and models carry URIs, MLflow's default experiment a bare path.
                for old, new in ((before.as_uri(), here.as_uri()), (str(before), str(here))):
                    connection.execute(
                        f"UPDATE {table} SET {column} = ? || substr({column}, ?)"  # noqa: S608 - names from above
                        f" WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                        (new, len(old) + 1, old, len(old) + 1, f"{old}/"),
                    )


def _former_roots(connection: sqlite3.Connection) -> set[Path]:
    """The artifact folders of the experiments that were created here, wherever the project was then."""
    try:
        rows = connection.execute("SELECT artifact_location FROM experiments WHERE artifact_location LIKE 'file:///%'")
        paths = {Path(unquote(urlsplit(location).path)) for (location,) in rows}
    except sqlite3.OperationalError:  # no tables yet
        return set()
    return {path for path in paths if path.name == artifact_root().name}


def _own_uri() -> str:
    return f"sqlite:///{database()}"
