"""Makes MLflow equal to a record."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from functools import partial
from importlib.metadata import version
from itertools import islice
from typing import TYPE_CHECKING, Any, Self, TypeVar

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from ltrec import artifacts, project
from ltrec.tracking import store
from ltrec.tracking.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    import onnx
    from mlflow.entities import Run
    from mlflow.models import ModelSignature

    from ltrec.tracking.records import Content, Record

    Expect = Callable[..., None]
    """`expect(seconds=None)`: the next answer of the store may take so long."""

T = TypeVar("T")

_DIGEST = "ltrec.digest"
_METRICS_A_BATCH, _OTHERS_A_BATCH = 1000, 100
_SLOWEST_UPLOAD = 1e6  # bytes a second
_UNHAPPY = {"FAILED", "KILLED"}
# What these end, the pipeline has ended.
_FINAL_STAGES = {"evaluate", "export"}


class Mirror:
    """A connection to MLflow, and what it is known to hold."""

    def __init__(self, client: MlflowClient, expect: Expect) -> None:
        self._client = client
        self._expect = expect
        self._uploaded: set[tuple[str, str, int]] = set()
        self._reflected: dict[Path, int] = {}
        self._forget()

    @classmethod
    def connect(cls, expect: Expect) -> Self:
        """Reach the store; processes that create a fresh one do so one after the other."""
        for talker in ("mlflow", "alembic"):
            logging.getLogger(talker).setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", module=r"mlflow\b")
        uri = store.tracking_uri()
        with _environment_kept("MLFLOW_TRACKING_URI"):  # it would look like the user's own
            mlflow.set_tracking_uri(uri)
        with _creation():
            if store.is_local():
                store.follow_a_move()
            client = MlflowClient(uri)
            expect(None if uri.startswith("http") else 120.0)
            client.search_experiments(max_results=1)
        return cls(client, expect)

    def reflect(self, record: Record, *, complete: bool) -> None:
        """Send what MLflow lacks of a record.

        Args:
            record: The record; no other process sends it.
            complete: True if nobody writes in it any more; once all is sent, it goes.
        """
        size = record.size()
        if self._reflected.get(record.folder) == size and not complete:
            return
        content = record.read()
        if complete and content.status == "RUNNING":
            content.status = "KILLED"  # who wrote it could not say so any more
        try:
            self._reflect(record, content)
        except Exception:
            self._forget()  # nobody knows how much of it has arrived
            raise
        self._reflected[record.folder] = size
        if complete:
            del self._reflected[record.folder]
            record.remove()

    def _forget(self) -> None:
        self._experiments: dict[str, str] = {}
        self._runs: dict[tuple[str, str, str, str | None], str] = {}
        self._ledgers: dict[str, Ledger] = {}

    def _reflect(self, record: Record, content: Content) -> None:
        self._expect()
        with _creation():
            parent = self._find_or_create(record, content, None)
            run_id = self._find_or_create(record, content, parent) if record.nested else parent
        run = self._client.get_run(run_id)
        self._send_texts(run, content)
        self._send_metrics(run, content)
        for name, folder in content.files.items():
            self._upload(run_id, record.copy_of(name), name, folder)
        if content.model:
            self._register(run_id, record, content.model)
        self._set_status(run, record, content)
        if record.nested:
            self._set_parent_status(parent, content)

    def _send_texts(self, run: Run, content: Content) -> None:
        held, tags = run.data.params, dict(content.tags)
        # MLflow lets no param change, so that a new value can only be a tag.
        tags |= {name: value for name, value in content.params.items() if held.get(name, value) != value}
        new_params = [Param(name, value) for name, value in content.params.items() if name not in held]
        new_tags = [RunTag(name, value) for name, value in tags.items() if run.data.tags.get(name) != value]
        for params in _batches(new_params, _OTHERS_A_BATCH):
            self._expect()
            self._client.log_batch(run.info.run_id, params=params)
        for some_tags in _batches(new_tags, _OTHERS_A_BATCH):
            self._expect()
            self._client.log_batch(run.info.run_id, tags=some_tags)

    def _send_metrics(self, run: Run, content: Content) -> None:
        run_id = run.info.run_id
        if run_id not in self._ledgers:
            self._ledgers[run_id] = Ledger(run.data.metrics, partial(self._history, run_id))
        for points in _batches(list(self._ledgers[run_id].lacks(content)), _METRICS_A_BATCH):
            self._expect()
            self._client.log_batch(run_id, metrics=[Metric(*point) for point in points])
            self._ledgers[run_id].add(points)

    def _history(self, run_id: str, name: str) -> list[tuple[int, int]]:
        self._expect()
        return [(metric.step, metric.timestamp) for metric in self._client.get_metric_history(run_id, name)]

    def _upload(self, run_id: str, copy: Path, name: str, folder: str) -> None:
        stat = copy.stat()
        stamp = (run_id, name, stat.st_mtime_ns)
        if stamp not in self._uploaded:
            self._expect_transfer(stat.st_size)
            self._client.log_artifact(run_id, str(copy), folder or None)
            self._uploaded.add(stamp)

    def _expect_transfer(self, size: int) -> None:
        self._expect(30 + size / _SLOWEST_UPLOAD)

    def _set_status(self, run: Run, record: Record, content: Content) -> None:
        """Say how it stands. A run that has ended the same way before keeps its times: its figures came later."""
        run_id, status = run.info.run_id, content.status
        if not record.nested and status == "FINISHED" and record.stage not in _FINAL_STAGES:
            return  # the pipeline goes on
        if run.info.status == status:
            return
        self._expect()
        if status == "RUNNING":
            self._client.update_run(run_id, status)
        else:
            self._client.set_terminated(run_id, status, content.ended)

    def _set_parent_status(self, parent: str, content: Content) -> None:
        """The pipeline fails with a stage, and goes on with a stage that is tried again."""
        held = self._client.get_run(parent).info.status
        if content.status in _UNHAPPY and held != content.status:
            self._client.set_terminated(parent, content.status, content.ended)
        elif content.status == "RUNNING" and held in _UNHAPPY:
            self._client.update_run(parent, "RUNNING")

    def _find_or_create(self, record: Record, content: Content, parent: str | None) -> str:
        stage, variant = (record.stage, record.variant) if parent else ("pipeline", None)
        experiment = self._experiment(record.experiment)
        key = (experiment, record.state, stage, variant)
        if key in self._runs:
            return self._runs[key]
        identity = {"ltrec.state": record.state, "ltrec.stage": stage}
        if variant:
            identity["ltrec.variant"] = variant
        wanted = " and ".join(f"tags.`{name}` = '{value}'" for name, value in identity.items())
        self._expect()
        found = self._client.search_runs([experiment], wanted, max_results=1)
        self._expect()
        if found:
            run_id = str(found[0].info.run_id)
            if parent and found[0].data.tags.get("mlflow.parentRunId") != parent:
                self._client.set_tag(run_id, "mlflow.parentRunId", parent)
        else:
            tags = {name: value for name, value in content.tags.items() if name.startswith(("ltrec.", "mlflow."))}
            tags |= identity | ({"mlflow.parentRunId": parent} if parent else {})
            name = record.name if parent else record.pipeline
            run_id = str(self._client.create_run(experiment, content.started, tags, name).info.run_id)
        self._runs[key] = run_id
        return run_id

    def _experiment(self, name: str) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or name
        if name not in self._experiments:
            found = self._client.get_experiment_by_name(name)
            if found is None:
                location = store.artifact_root().as_uri() if store.is_local() else None
                self._experiments[name] = self._client.create_experiment(name, artifact_location=location)
            else:
                if found.lifecycle_stage == "deleted":
                    self._client.restore_experiment(found.experiment_id)
                self._experiments[name] = found.experiment_id
        return self._experiments[name]

    def _register(self, run_id: str, record: Record, model: dict[str, Any]) -> None:
        """Log the model, register it and move the alias; one that is registered already only gets the alias."""
        name, path = record.model_name, record.copy_of(model["file"])
        digest = artifacts.digest(path)
        self._expect()
        known = self._client.search_model_versions(f"name = '{name}'")
        same = [str(each.version) for each in known if each.tags.get(_DIGEST) == digest and each.run_id == run_id]
        number = same[0] if same else self._log_model(run_id, name, path)
        for tag, value in ({_DIGEST: digest, "ltrec.state": record.state} | model["tags"]).items():
            self._client.set_model_version_tag(name, number, tag, value)
        self._client.set_registered_model_alias(name, model["alias"], number)

    def _log_model(self, run_id: str, name: str, path: Path) -> str:
        import mlflow.onnx
        import onnx
        from mlflow.models import Model

        model = onnx.load(path)
        self._expect_transfer(path.stat().st_size)
        logged = Model.log(
            artifact_path=None,
            name="model",
            flavor=mlflow.onnx,
            run_id=run_id,  # rather than mlflow.onnx.log_model, which starts and ends the run
            onnx_model=model,
            signature=_signature(model),
            save_as_external_data=False,
            pip_requirements=[f"{package}=={version(package)}" for package in ("onnx", "onnxruntime", "numpy")],
        )
        # Here rather than by Model.log, which prints what it does.
        with _creation():
            if not self._client.search_registered_models(f"name = '{name}'"):
                self._client.create_registered_model(name)
        self._expect()
        made = self._client.create_model_version(name, logged.model_uri, run_id, model_id=logged.model_id)
        return str(made.version)


def import_store() -> None:
    """Import what a store in a database takes, which takes as long as MLflow itself."""
    if not store.tracking_uri().startswith("http"):
        import mlflow.store.tracking.sqlalchemy_store  # noqa: F401


def _signature(model: onnx.ModelProto) -> ModelSignature:
    """From the file's own inputs and outputs; a named dimension may be of any length."""
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec
    from onnx import helper

    def schema(values: Iterable[onnx.ValueInfoProto]) -> Schema:
        return Schema(
            [
                TensorSpec(
                    helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type),
                    tuple(dim.dim_value or -1 for dim in value.type.tensor_type.shape.dim),
                    value.name,
                )
                for value in values
            ]
        )

    return ModelSignature(schema(model.graph.input), schema(model.graph.output))


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


@contextlib.contextmanager
def _environment_kept(name: str) -> Iterator[None]:
    before = os.environ.get(name)
    yield
    if before is None:
        os.environ.pop(name, None)


def _creation() -> AbstractContextManager[None]:
    """One process at a time makes a store, an experiment or a run."""
    return project.lock(project.state_dir() / "tracking" / ".creation.lock", patience=60.0)
