"""Makes MLflow equal to a record. The only module that talks to MLflow."""

from __future__ import annotations

import logging
import os
import warnings
from importlib.metadata import version
from typing import TYPE_CHECKING, Self

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec
from onnx import helper

from ltrec import artifacts, project
from ltrec.tracking import store

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractContextManager
    from pathlib import Path

    import onnx
    from mlflow.entities import Run

    from ltrec.tracking.records import Content, Record

_DIGEST = "ltrec.digest"
_METRICS_A_BATCH = 1000
_PARAMS_A_BATCH = 100


class Mirror:
    """A connection to MLflow, and what it is known to hold."""

    def __init__(self, client: MlflowClient) -> None:
        self._client = client
        self._experiments: dict[str, str] = {}
        self._runs: dict[tuple[str, str, str, str | None], str] = {}
        self._sent: set[tuple[str, str, int]] = set()
        self._held: dict[str, set[tuple[str, int]]] = {}

    @classmethod
    def connect(cls) -> Self:
        """Reach the store; processes that create a fresh one do so one after the other."""
        logging.getLogger("mlflow").setLevel(logging.ERROR)
        logging.getLogger("alembic").setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", module="mlflow")
        uri = store.tracking_uri()
        mlflow.set_tracking_uri(uri)
        if not store.is_local():
            return cls(MlflowClient(uri))
        with _creation():
            store.follow_a_move()
            client = MlflowClient(uri)
            client.search_experiments(max_results=1)
        return cls(client)

    def reflect(self, record: Record) -> None:
        """Send what MLflow lacks of a record; when the stage has ended and all is sent, the record goes."""
        content = record.read()
        with _creation():
            run_id = self._run_of(record)
        self._reflect_values(run_id, content)
        for name, folder in content.files.items():
            copy = record.copy_of(name)
            stamp = (run_id, name, copy.stat().st_mtime_ns)
            if stamp not in self._sent:
                self._client.log_artifact(run_id, str(copy), folder or None)
                self._sent.add(stamp)
        if content.model:
            self._register(run_id, record, content.model)
        if content.status == "RUNNING":
            self._client.update_run(run_id, status="RUNNING")
            return
        self._client.set_terminated(run_id, content.status)
        if record.read() == content:
            record.remove()

    def _reflect_values(self, run_id: str, content: Content) -> None:
        run = self._client.get_run(run_id)
        params = [Param(name, value) for name, value in content.params.items() if name not in run.data.params]
        tags = [RunTag(name, value) for name, value in content.tags.items() if run.data.tags.get(name) != value]
        if run_id not in self._held:
            self._held[run_id] = self._history(run, {name for name, _ in content.metrics})
        fresh = {key: value for key, value in content.metrics.items() if key not in self._held[run_id]}
        metrics = [Metric(name, value, at, step) for (name, step), (value, at) in fresh.items()]
        for start in range(0, len(params), _PARAMS_A_BATCH):
            self._client.log_batch(run_id, params=params[start : start + _PARAMS_A_BATCH])
        self._client.log_batch(run_id, tags=tags)
        for start in range(0, len(metrics), _METRICS_A_BATCH):
            self._client.log_batch(run_id, metrics=metrics[start : start + _METRICS_A_BATCH])
        self._held[run_id].update(fresh)

    def _history(self, run: Run, names: set[str]) -> set[tuple[str, int]]:
        """The (name, step) pairs that an earlier process sent."""
        known = names & set(run.data.metrics)
        return {
            (name, metric.step) for name in known for metric in self._client.get_metric_history(run.info.run_id, name)
        }

    def _run_of(self, record: Record) -> str:
        """The run of a record, and with it its parent, found or created."""
        parent = self._find_or_create(record, "pipeline", None)
        return parent if record.stage == "pipeline" else self._find_or_create(record, record.stage, parent)

    def _find_or_create(self, record: Record, stage: str, parent: str | None) -> str:
        variant = record.variant if parent else None
        experiment = self._experiment(record.settings["experiment"])
        key = (experiment, record.state, stage, variant)
        if key not in self._runs:
            identity = {"ltrec.state": record.state, "ltrec.stage": stage}
            if variant:
                identity["ltrec.variant"] = variant
            clauses = [f"tags.`{name}` = '{value}'" for name, value in identity.items()]
            found = self._client.search_runs([experiment], " and ".join(clauses), max_results=1)
            if parent:
                identity["mlflow.parentRunId"] = parent
            name = variant or (stage if parent else f"pipeline {record.state[:8]}")
            run = found[0] if found else self._client.create_run(experiment, tags=identity, run_name=name)
            self._runs[key] = run.info.run_id
        return self._runs[key]

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

    def _register(self, run_id: str, record: Record, model: dict[str, str]) -> None:
        """Log the model, register it and move the alias; one that is registered already only gets the alias."""
        name = record.settings["model"]
        path = record.copy_of(model["file"])
        content_digest = artifacts.digest(path)
        known = self._client.search_model_versions(f"name = '{name}'")
        same = [version for version in known if version.tags.get(_DIGEST) == content_digest]
        version = same[0].version if same else self._log_model(run_id, name, path, content_digest)
        self._client.set_registered_model_alias(name, model["alias"], version)

    def _log_model(self, run_id: str, name: str, path: Path, content_digest: str) -> str:
        import mlflow.onnx
        import onnx

        model = onnx.load(path)
        with mlflow.start_run(run_id=run_id, log_system_metrics=False):
            logged = mlflow.onnx.log_model(
                model,
                name="model",
                signature=_signature(model),
                save_as_external_data=False,
                pip_requirements=[f"{package}=={version(package)}" for package in ("onnx", "onnxruntime", "numpy")],
            )
        if not self._client.search_registered_models(f"name = '{name}'"):
            self._client.create_registered_model(name)
        # The client says nothing, unlike log_model(registered_model_name=…), which prints.
        registered = self._client.create_model_version(
            name, logged.model_uri, run_id, tags={_DIGEST: content_digest}, model_id=logged.model_id
        )
        return str(registered.version)


def _signature(model: onnx.ModelProto) -> ModelSignature:
    """From the file's own inputs and outputs; a named dimension may be of any length."""

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


def _creation() -> AbstractContextManager[None]:
    """One process at a time makes a store, an experiment or a run."""
    return project.lock(project.state_dir() / "tracking" / ".creation.lock", patience=60.0)
