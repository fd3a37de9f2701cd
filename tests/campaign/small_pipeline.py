"""A pipeline of little work, and what is to be the same after it however it was disturbed."""

from __future__ import annotations

import hashlib
import re
import sqlite3
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
from PIL import Image
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from tests.pipeline.checkout import Project

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SMALL = {
    "prepare.source.root": "images",
    "prepare.split": {"val": 4, "test": 4},
    "prepare.long_tail": None,
    # Crops are drawn anew in each epoch, so that the decoding processes work as long as the training does.
    "represent.augment.crop": {"name": "resized"},
    "represent.epochs": 40,
    "represent.workers": 2,
    "featurize.workers": 2,
    "rebalance.tau_norm": None,
    "evaluate.bootstrap": 20,
}
STAGES = [
    ["prepare"], ["represent"], ["featurize"], ["rebalance", "joint"], ["rebalance", "crt"], ["evaluate"], ["export"],
]  # fmt: skip
_TRACEBACK = "Traceback (most recent call last)"
# Python shows a Ctrl-C that comes while it imports the program.
_STARTING = re.compile(
    r":\n  File \"[^\"]*/bin/\w+\", line \d+, in <module>\n    from .*\n(?:\s+.*\n)+KeyboardInterrupt\n"
)


def small_project(folder: Path) -> Project:
    """Return a checkout with 72 images of three classes, before its first stage."""
    project = Project.checkout(folder)
    rng = np.random.default_rng(0)
    for label in range(3):
        (folder / "images" / str(label)).mkdir(parents=True)
        for number in range(24):
            pixels = 8 * label + rng.integers(0, 80, (20, 20, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(folder / "images" / str(label) / f"{number:02}.png")
    project.set(SMALL)
    project.commit("small")
    return project


def outputs(folder: Path) -> dict[str, str]:
    """Return the digest of each file that the stages wrote, by its path."""
    return {
        file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted((folder / "artifacts").rglob("*"))
        if file.is_file()
    }


def temporaries(folder: Path) -> list[str]:
    """Return what only a process at work may have: half-written files, records and resume states."""
    left = [*folder.glob("artifacts/**/.*"), *folder.glob(".ltrec/**/*.tmp")]
    left += [*folder.glob(".ltrec/resume/*/*"), *folder.glob(".ltrec/tracking/*/*/about.json")]
    return sorted(file.relative_to(folder).as_posix() for file in left)


def processes(folder: Path) -> list[psutil.Process]:
    """Return the living processes that work in a folder."""
    return [
        process
        for process in psutil.process_iter(["cwd", "status"])
        if process.info["cwd"] == str(folder.resolve()) and process.info["status"] != psutil.STATUS_ZOMBIE
    ]


def lost_files(folder: Path) -> list[Path]:
    """Return the files of DVC's that are empty or cut off: it writes them in place."""
    return [file for file in (folder / "dvc.lock", folder / ".dvc/tmp/rwlock") if file.exists() and _is_lost(file)]


def _is_lost(file: Path) -> bool:
    try:
        return YAML(typ="safe").load(file) is None  # JSON is YAML; with no lock held rwlock is {}
    except YAMLError:
        return True


def tracebacks(said: str) -> list[str]:
    """Return the last line of each traceback: what was raised.

    Not those of Ctrl-C outside ltrec's code, as docs/reliability.md says: before the program begins, and in C++, which
    shows what Python raised in it after `what():`.
    """
    before, *parts = said.split(_TRACEBACK)
    found = []
    for part in parts:
        if not (_STARTING.match(part) or before.endswith("what():  ")):
            found.append(next((line for line in part.splitlines()[1:] if re.match(r"\S", line)), "cut off"))
        before = part
    return found


def held_by_mlflow(folder: Path) -> Counter[tuple[Any, ...]]:
    """Return how often MLflow holds each fact: runs, params, points of curves, tags, files, models and aliases.

    The machine's load is left out, and the tag of `dvc.lock`, which is another one in the middle of a pipeline.
    """
    with closing(sqlite3.connect(folder / "mlflow.db")) as store:
        return Counter(_facts(store, folder))


def _facts(store: sqlite3.Connection, folder: Path) -> Iterator[tuple[Any, ...]]:
    names = dict(store.execute("SELECT run_uuid, name FROM runs"))
    yield from (("run", *row) for row in store.execute("SELECT name, status, lifecycle_stage FROM runs"))
    for table, columns in {"params": "key, value", "metrics": "key, step, value", "tags": "key, value"}.items():
        for run, key, *values in store.execute(f"SELECT run_uuid, {columns} FROM {table}"):  # noqa: S608
            if key == "mlflow.parentRunId":
                yield "child", names[run], names.get(values[0])
            elif not key.startswith("system/") and key != "ltrec.dvc_lock":
                yield table, names[run], key, *values
    yield from (("model", *row) for row in store.execute("SELECT name, status FROM logged_models"))
    yield from (("version", *row) for row in store.execute("SELECT name, value FROM model_version_tags"
                                                           " WHERE key = 'ltrec.digest'"))  # fmt: skip
    yield from (("alias", *row) for row in store.execute("SELECT name, alias, version FROM registered_model_aliases"))
    for run, name in names.items():
        for file in (folder / "mlruns" / run / "artifacts").rglob("*"):
            if file.is_file():
                where = file.relative_to(folder / "mlruns" / run)
                yield "file", name, where.as_posix(), hashlib.sha256(file.read_bytes()).hexdigest()
