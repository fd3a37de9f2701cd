"""Makes MLflow's runs equal to records; nothing is sent twice."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import shutil
import warnings
from typing import TYPE_CHECKING, Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from ltrec import project
from ltrec.tracking import store
from ltrec.tracking.creating import create_once

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from mlflow.entities import Run

    from ltrec.tracking.records import Content, Record

_MIGRATION = 120.0
_UNHAPPY = {"FAILED", "KILLED"}
# What these end, the pipeline has ended.
_FINAL_STAGES = {"evaluate", "export", "seeds"}


class Runs:
    """MLflow's runs, and what is known to be in them.

    Args:
        expect: `expect(seconds=None)` is called before the store is asked: its answer may take so long,
            by default the settings' patience.
    """

    def __init__(self, expect: Callable[..., None]) -> None:
        for talker in ("mlflow", "alembic", "urllib3"):
            logging.getLogger(talker).setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", module=r"mlflow\b")
        self._expect = expect
        self._forget()
        with _creation():  # where there are no tables, they are made
            self._expect(None if store.is_server() else _MIGRATION)
            if store.is_local() and _is_missing(store.database()):
                _make_store()
            self._mlflow = MlflowClient(store.tracking_uri())
            self._mlflow.search_experiments(max_results=1)

    def update(self, record: Record, *, complete: bool) -> None:
        """Send what MLflow lacks of a record.

        Args:
            record: The record; no other process sends it.
            complete: True if nobody writes in it any more: files and the model are sent too, and the record goes.
        """
        content = record.read()
        if complete and content.status == "RUNNING":
            content.status = "KILLED"  # who wrote it could not say so any more
        try:
            self._update(record, content, complete=complete)
        except Exception:
            self._forget()  # nobody knows how much of it has arrived
            raise
        if complete:
            record.remove()
            self._forget()  # a user may delete the run, and another process may send its next record

    def _client(self, seconds: float | None = None) -> MlflowClient:
        self._expect(seconds)
        return self._mlflow

    def _forget(self) -> None:
        self._ids: dict[tuple[str, ...], str] = {}
        self._steps: dict[tuple[str, str], set[int]] = {}

    def _update(self, record: Record, content: Content, *, complete: bool) -> None:
        with _creation():
            parent = self._find_or_create(record, content, None)
            run_id = self._find_or_create(record, content, parent) if record.about.nested else parent
        run = self._client().get_run(run_id)
        held, tags = run.data.params, dict(content.tags)
        # MLflow lets no param change, so that a new value can only be a tag.
        tags |= {name: value for name, value in content.params.items() if held.get(name, value) != value}
        params = [Param(name, value) for name, value in content.params.items() if name not in held]
        self._log(run_id, "params", params, 100)
        changed = [RunTag(name, value) for name, value in tags.items() if run.data.tags.get(name) != value]
        self._log(run_id, "tags", changed, 100)
        self._log(run_id, "metrics", list(self._lacking(run, content)), 1000)
        if complete:
            for name, folder in content.files.items():
                copy = record.copy_of(name)
                self._client(store.upload_seconds(copy)).log_artifact(run_id, str(copy), folder or None)
            if content.model:
                self._register(run, record, content.model)
        self._set_status(run, record, content)
        if record.about.nested:
            self._set_parent_status(parent, content)

    def _log(self, run_id: str, kind: str, items: list[Any], at_most: int) -> None:
        for start in range(0, len(items), at_most):
            self._client().log_batch(run_id, **{kind: items[start : start + at_most]})  # type: ignore[arg-type]

    def _lacking(self, run: Run, content: Content) -> Iterator[Metric]:
        """Yield the metrics that MLflow lacks: of a figure another value, of a curve another step."""
        latest = run.data.metrics
        for (name, step), (value, when) in content.metrics.items():
            if step is None:
                if name not in latest or not _same(latest[name], value):
                    yield Metric(name, value, when, 0)
                continue
            key = run.info.run_id, name
            if key not in self._steps:
                history = self._client().get_metric_history(*key) if name in latest else []
                self._steps[key] = {metric.step for metric in history}
            if step not in self._steps[key]:
                self._steps[key].add(step)
                yield Metric(name, value, when, step)

    def _set_status(self, run: Run, record: Record, content: Content) -> None:
        """Say how it stands. A run that has ended the same way before keeps its times: its figures came later."""
        if not record.about.nested and content.status == "FINISHED" and record.about.stage not in _FINAL_STAGES:
            return  # the pipeline goes on
        if run.info.status == content.status:
            return
        if content.status == "RUNNING":
            self._client().update_run(run.info.run_id, content.status)
        else:
            self._client().set_terminated(run.info.run_id, content.status, content.ended)

    def _set_parent_status(self, parent: str, content: Content) -> None:
        """The pipeline fails with a stage, and goes on with a stage that is tried again."""
        held = self._client().get_run(parent).info.status
        if content.status in _UNHAPPY and held != content.status:
            self._client().set_terminated(parent, content.status, content.ended)
        elif content.status == "RUNNING" and held in _UNHAPPY:
            self._client().update_run(parent, "RUNNING")

    def _find_or_create(self, record: Record, content: Content, parent: str | None) -> str:
        about = record.about
        experiment = self._experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME") or about.experiment)
        identity = {"ltrec.state": record.state, "ltrec.stage": about.stage if parent else "pipeline"}
        if parent and about.variant:
            identity["ltrec.variant"] = about.variant
        key = (experiment, *identity.values())
        if key in self._ids:
            return self._ids[key]
        wanted = " and ".join(f"tags.`{name}` = '{value}'" for name, value in identity.items())
        tags = {name: value for name, value in content.tags.items() if name.startswith(("ltrec.", "mlflow."))}
        tags |= identity | ({"mlflow.parentRunId": parent} if parent else {})
        name = about.variant or about.stage if parent else about.pipeline
        found = create_once(
            lambda: list(self._client().search_runs([experiment], wanted)),
            lambda: self._client().create_run(experiment, content.started, tags, name),
        )
        run = self._the_one(found)
        if parent and run.data.tags.get("mlflow.parentRunId") != parent:
            self._client().set_tag(run.info.run_id, "mlflow.parentRunId", parent)
        self._ids[key] = run.info.run_id
        return self._ids[key]

    def _the_one(self, found: list[Run]) -> Run:
        """Return the run that everybody goes on with: the oldest that says something, else the oldest.

        There are several where a creating call was executed after it seemed lost, or where two checkouts in the same
        state began together. Of those, what says nothing yet is deleted.
        """
        by_age = sorted(found, key=lambda run: (run.info.start_time, run.info.run_id))
        if len(by_age) == 1:
            return by_age[0]
        empty = [run for run in by_age if self._is_empty(run)]
        kept = next((run for run in by_age if run not in empty), by_age[0])
        for run in empty:
            if run is not kept:
                self._client().delete_run(run.info.run_id)
        return kept

    def _is_empty(self, run: Run) -> bool:
        if run.data.params or run.data.metrics or run.info.status != "RUNNING":
            return False
        children = f"tags.`mlflow.parentRunId` = '{run.info.run_id}'"
        return not self._client().search_runs([run.info.experiment_id], children, max_results=1)

    def _experiment(self, name: str) -> str:
        if (name,) not in self._ids:
            location = store.artifact_root().as_uri() if store.is_local() else None
            found, *_ = create_once(
                lambda: [each for each in [self._client().get_experiment_by_name(name)] if each],
                lambda: self._client().get_experiment(self._client().create_experiment(name, location)),
            )
            if found.lifecycle_stage == "deleted":
                self._client().restore_experiment(found.experiment_id)
            self._ids[name,] = found.experiment_id
        return self._ids[name,]

    def _register(self, run: Run, record: Record, model: dict[str, Any]) -> None:
        file = record.copy_of(model["file"])
        self._expect(store.upload_seconds(file))  # to import what reads it takes as long
        from ltrec.tracking.models import Registry

        tags = {"ltrec.state": record.state} | model["tags"]
        Registry(self._client, run, record.about.model).register(file, tags, model["alias"])


def _is_missing(database: Path) -> bool:
    """Return whether there is no database; to ask SQLite for a lock leaves an empty file."""
    return not database.exists() or not database.stat().st_size


def _make_store() -> None:
    """Make the project's own store as a whole or not at all: MLflow cannot finish tables that a kill left half made."""
    folder = store.database().with_suffix(".db.new")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        new = folder / store.database().name
        MlflowClient(f"sqlite:///{new}").search_experiments(max_results=1)
        new.replace(store.database())
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class SystemLoad:
    """Samples of processor, memory, disk, network and, where there is one, GPU by MLflow's own collectors."""

    def __init__(self) -> None:
        from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
        from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
        from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
        from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

        self._monitors: list[Any] = []
        for kind in (CPUMonitor, DiskMonitor, NetworkMonitor, GPUMonitor):
            with contextlib.suppress(Exception):  # no GPU, no driver or no library for it: nothing to sample
                self._monitors.append(kind())

    def now(self) -> dict[str, float]:
        """Return values by MLflow's names, such as `cpu_utilization_percentage`."""
        values: dict[str, float] = {}
        for monitor in self._monitors:
            monitor.collect_metrics()
            values |= monitor.aggregate_metrics()
            monitor.clear_metrics()
        return values


def import_store() -> None:
    """Import what a store in a database takes, which takes as long as MLflow itself."""
    if not store.is_server():
        import mlflow.store.tracking.sqlalchemy_store  # noqa: F401


def _same(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))


def _creation() -> AbstractContextManager[None]:
    """One process at a time makes a store, an experiment or a run."""
    return project.lock(project.state_dir() / "tracking" / ".creation.lock", patience=60.0)
