"""What an MLflow server holds of an experiment and a model, as facts that two servers can be compared by."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltrec import artifacts

if TYPE_CHECKING:
    from collections.abc import Iterator

Fact = tuple[Any, ...]
Facts = Counter[Fact]


def facts(folder: Path, name: str) -> Facts:
    """Return all that is in a server's folder of the experiment and the model of a name, how often each is there.

    Ids, the name itself and the times of receiving are left out, and so is what was deleted.
    """
    with closing(sqlite3.connect(folder / "mlflow.db")) as store:
        found = Reader(store, folder / "stored", name)
        return Counter(_without(name, fact) for part in (found.runs, found.models, found.versions) for fact in part())


def _without(name: str, fact: Fact) -> Fact:
    return tuple(part.replace(name, "…") if isinstance(part, str) else part for part in fact)


class Reader:
    """Reads MLflow's tables and the folder with the files."""

    def __init__(self, store: sqlite3.Connection, stored: Path, name: str) -> None:
        self._store, self._stored, self._name = store, stored, name
        rows = self._ask("runs", "run_uuid, r.name, experiment_id")
        self._runs = {run_id: run_name for run_id, run_name, _ in rows}
        self._experiment = next((experiment for *_, experiment in rows), None)

    def runs(self) -> Iterator[Fact]:
        for run_id, *told in self._ask("runs", "run_uuid, r.name, status, start_time, end_time"):
            yield "run", *told
            run_name = told[0]
            for kind, columns in (("params", "key, value"), ("metrics", "key, step, value, timestamp, is_nan")):
                for row in self._select(f"{columns} FROM {kind} WHERE run_uuid = ?", run_id):
                    yield kind, run_name, *row
            for key, value in self._select("key, value FROM tags WHERE run_uuid = ?", run_id):
                yield "tag", run_name, key, self._runs.get(value, value)
            for row in self._select("destination_type FROM inputs WHERE source_id = ?", run_id):
                yield "output", run_name, *row
            for file, path in self._files(f"{run_id}/artifacts"):
                yield "file", run_name, path, artifacts.digest(file)

    def models(self) -> Iterator[Fact]:
        for model, run_id, status in self._ask("logged_models", "model_id, source_run_id, status"):
            yield "model", self._runs.get(run_id), status
            for kind in ("tag", "param"):
                table = f"logged_model_{kind}s"
                for row in self._select(f"{kind}_key, {kind}_value FROM {table} WHERE model_id = ?", model):
                    yield f"model's {kind}", *row
            for row in self._select("metric_name, metric_value FROM logged_model_metrics WHERE model_id = ?", model):
                yield "model's metric", *row
            for _, path in self._files(f"models/{model}/artifacts"):
                yield "model's file", path

    def versions(self) -> Iterator[Fact]:
        models = {f"models:/{model}" for (model,) in self._ask("logged_models", "model_id")}
        versions = self._select("version, run_id, source FROM model_versions WHERE name = ?", self._name)
        for version, run_id, source in versions:
            yield "version", version, self._runs.get(run_id), source in models
        for row in self._select("version, key, value FROM model_version_tags WHERE name = ?", self._name):
            yield "version's tag", *row
        for row in self._select("alias, version FROM registered_model_aliases WHERE name = ?", self._name):
            yield "alias", *row

    def _ask(self, table: str, columns: str) -> list[Fact]:
        """Return columns of the experiment's rows that are not deleted."""
        return self._select(
            f"{columns} FROM {table} r JOIN experiments e USING (experiment_id)"
            " WHERE e.name = ? AND r.lifecycle_stage = 'active'",
            self._name,
        )

    def _select(self, query: str, *values: object) -> list[Fact]:
        return self._store.execute(f"SELECT {query}", values).fetchall()

    def _files(self, inside: str) -> Iterator[tuple[Path, str]]:
        folder = self._stored / str(self._experiment) / inside
        for file in filter(Path.is_file, folder.rglob("*")):
            yield file, file.relative_to(folder).as_posix()
