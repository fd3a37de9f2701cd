"""Where MLflow's store is: the server that the environment names, or a database in the project's root."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from typing import TYPE_CHECKING

from ltrec import project

if TYPE_CHECKING:
    from pathlib import Path

# Where MLflow writes absolute artifact locations into its database.
_LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


def tracking_uri() -> str:
    """MLFLOW_TRACKING_URI, else `mlflow.db` in the project's root, which `mlflow ui` finds there by itself."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{database()}"


def database() -> Path:
    return project.root() / "mlflow.db"


def artifact_root() -> Path:
    return project.root() / "mlruns"


def is_local() -> bool:
    """True if the store is the project's own database."""
    return tracking_uri() == f"sqlite:///{database()}"


def follow_a_move() -> None:
    """Correct the absolute locations in the project's database if the project was moved or copied."""
    marker = project.state_dir() / "tracking" / "root"
    here = str(project.root())
    before = marker.read_text(encoding="utf-8") if marker.is_file() else here
    if before != here and database().is_file():
        with contextlib.closing(sqlite3.connect(database())) as connection, connection:
            for table, column in _LOCATIONS:
                connection.execute(
                    f"UPDATE {table} SET {column} = replace({column}, ?, ?) WHERE {column} LIKE '%' || ? || '%'",  # noqa: S608
                    (f"{before}/mlruns", f"{here}/mlruns", f"{before}/mlruns"),
                )
    marker.parent.mkdir(parents=True, exist_ok=True)
    marker.write_text(here, encoding="utf-8")
