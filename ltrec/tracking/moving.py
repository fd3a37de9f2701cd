"""Lets the project's own store follow when the project is moved, renamed or copied.

MLflow stores where the files of every experiment, run and model are as absolute paths, and none of its calls changes
them, so that they are rewritten in its tables.
"""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from ltrec import console
from ltrec.errors import UserError
from ltrec.tracking import store

if TYPE_CHECKING:
    from collections.abc import Iterator

_PATIENCE = 1.0
# MLflow's tables and columns with places of files; one that a version of MLflow lacks is passed over.
_PLACES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("trace_tags", "value"),
)


def follow() -> None:
    """Let the project's own store look for its files where the project is now, and say so if they were elsewhere.

    A store that is not the project's own is left alone: a server's, and a database that is a link to somewhere else.
    What exists at the old place alone, as after copying the database without its files, is still looked for there.

    Raises:
        UserError: the database cannot be read or written.
    """
    if not store.is_local() or not store.database().is_file() or store.database().is_symlink():
        return
    try:
        with _opened() as database:
            places = _old_places(database)
            for place in places:
                _rewrite(database, place, store.artifact_root())
            database.commit()
    except sqlite3.Error as error:
        raise UserError(f"{error}; whether the project was moved is not known", where=str(store.database())) from error
    for place in places:
        console.say(f"the project was moved or copied from {place.parent}: MLflow now looks for its files here")


@contextlib.contextmanager
def _opened() -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(store.database(), timeout=_PATIENCE)) as database:
        yield database


def _old_places(database: sqlite3.Connection) -> list[Path]:
    """Return the `mlruns` of other folders in which experiments have their files as ltrec lays them out."""
    if not _has(database, "experiments", "artifact_location"):
        return []
    locations = database.execute("SELECT DISTINCT artifact_location FROM experiments").fetchall()
    return [_path(location) for (location,) in locations if location and _is_elsewhere(location)]


def _is_elsewhere(location: str) -> bool:
    """Return True if an experiment's artifact location is the `mlruns` of another folder than this project's."""
    if urlsplit(location).scheme != "file":
        return False
    path = _path(location)
    return path.name == store.artifact_root().name and path.resolve() != store.artifact_root().resolve()


def _rewrite(database: sqlite3.Connection, old: Path, new: Path) -> None:
    """Rewrite every place below a folder to the same below another, in the transaction that begins here."""
    database.create_function("moved", 1, lambda place: _moved(place, old, new), deterministic=True)
    for table, column in _PLACES:
        if _has(database, table, column):
            database.execute(f"UPDATE {table} SET {column} = moved({column}) WHERE moved({column}) != {column}")  # noqa: S608


def _moved(place: str | None, old: Path, new: Path) -> str | None:
    """Return a place, written as a URI or as a path, below the new folder if it is below the old one."""
    if place is None:
        return None
    for before, after, read in ((old.as_uri(), new.as_uri(), unquote), (str(old), str(new), str)):
        if place == before or place.startswith(f"{before}/"):
            inside = place.removeprefix(before)
            is_left = Path(f"{old}{read(inside)}").exists() and not Path(f"{new}{read(inside)}").exists()
            return place if inside and is_left else after + inside
    return place


def _has(database: sqlite3.Connection, table: str, column: str) -> bool:
    return (column,) in database.execute("SELECT name FROM pragma_table_info(?)", (table,)).fetchall()


def _path(location: str) -> Path:
    return Path(unquote(urlsplit(location).path))
