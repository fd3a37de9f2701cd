"""Where MLflow's store is: the server that the environment names, or a database in the project's root."""

from __future__ import annotations

import contextlib
import http.client
import os
import shlex
import sqlite3
import ssl
import urllib.request
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ltrec import project
from ltrec.errors import UserError
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


def is_elsewhere(location: str) -> bool:
    """Return True if an experiment's artifact location is the `mlruns` of another folder than this project's."""
    if urlsplit(location).scheme != "file":
        return False
    path = _path(location)
    return path.name == artifact_root().name and path.resolve() != artifact_root().resolve()


def moved(location: str, experiment: str, number: str) -> UserError:
    """Return the error that says what mends a moved or a copied project.

    MLflow stores the location of every experiment, run and model absolute, and none of its calls changes it. So
    a link is left at the old place, or, where another project is there, a new experiment begins.

    Args:
        location: Where the experiment's artifacts are.
        experiment: Its name.
        number: Its id in MLflow.
    """
    before, here = _path(location), artifact_root()
    ancestor = next(folder for folder in before.parents if folder.exists())
    if not before.exists() and os.access(ancestor, os.W_OK):
        return UserError(
            f"the project was moved, but its runs' files are still looked for in {before}; to find them again: "
            f"`mkdir -p {_quoted(before.parent)} {_quoted(here)} && ln -s {_quoted(here)} {_quoted(before)}`"
        )
    rename = f"mlflow experiments rename --experiment-id {number} --new-name"
    new_name = shlex.quote(f"{experiment} of {before.parent.name}")
    return UserError(
        f"the project was moved or copied, but the files of its experiment {experiment} belong in {before}; to begin "
        f"a new one here: `cd {_quoted(here.parent)} && {rename} {new_name}`, then `ltrec evaluate && ltrec export`"
    )


def _path(location: str) -> Path:
    return Path(unquote(urlsplit(location).path))


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


def _own_uri() -> str:
    return f"sqlite:///{database()}"
