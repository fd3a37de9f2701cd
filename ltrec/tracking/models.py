"""Logs an ONNX file as a model of MLflow's and registers it; a try that broke off is continued."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import mlflow.onnx
import onnx
from mlflow.entities import LoggedModelOutput, LoggedModelStatus, Metric
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec

from ltrec import artifacts
from ltrec.tracking import store
from ltrec.tracking.creating import create_once

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

_DIGEST = "ltrec.digest"


class Registry:
    """A run's models, and what they are registered as.

    Args:
        client: `client(seconds=None)` returns MLflow's client, whose next answer may take so long.
        run: The run.
        name: The name that its models are registered under.
    """

    def __init__(self, client: Callable[..., MlflowClient], run: Run, name: str) -> None:
        self._client, self._run, self._name = client, run, name

    def register(self, file: Path, tags: Mapping[str, str], alias: str) -> None:
        """Log the file, register it and move the alias; one that is registered already only gets tags and alias."""
        tags = {_DIGEST: artifacts.digest(file)} | dict(tags)
        if not self._versions(tags[_DIGEST]):
            model = self._log(file, tags)
            create_once(self._registered, lambda: self._client().create_registered_model(self._name))
            create_once(lambda: self._versions(tags[_DIGEST]), lambda: self._create_version(model, tags))
        oldest, *doubles = self._versions(tags[_DIGEST])
        for tag, value in tags.items():
            if oldest.tags.get(tag) != value:
                self._client().set_model_version_tag(self._name, oldest.version, tag, value)
        self._client().set_registered_model_alias(self._name, alias, oldest.version)
        for double in doubles:
            if not set(double.aliases) - {alias}:  # one that a user points to stays
                self._client().delete_model_version(self._name, double.version)

    def _registered(self) -> list[RegisteredModel]:
        return list(self._client().search_registered_models(f"name = '{self._name}'"))

    def _versions(self, digest: str) -> list[ModelVersion]:
        """Return the run's versions of a file; the server numbers them, so that the first is everybody's oldest."""
        known = self._client().search_model_versions(f"name = '{self._name}'")
        same = [each for each in known if each.tags.get(_DIGEST) == digest and each.run_id == self._run.info.run_id]
        return sorted(same, key=lambda each: int(each.version))

    def _create_version(self, model: LoggedModel, tags: dict[str, str]) -> ModelVersion:
        """Register here rather than by `Model.log`, which prints what it does."""
        uri, run_id = f"models:/{model.model_id}", self._run.info.run_id
        return self._client().create_model_version(self._name, uri, run_id, tags, model_id=model.model_id)

    def _log(self, file: Path, tags: dict[str, str]) -> LoggedModel:
        """Return the file as a model that is READY.

        Here rather than by `Model.log`, which chooses the experiment by itself and begins a new model each time.
        """
        model, *_ = create_once(lambda: self._logged(tags[_DIGEST]), lambda: self._create_logged(tags))
        if model.status != LoggedModelStatus.READY:
            self._describe(model)
            with TemporaryDirectory() as folder:
                _save(file, Path(folder, "model"), model)
                self._client(store.upload_seconds(file)).log_model_artifacts(model.model_id, str(Path(folder, "model")))
            model = self._client().finalize_logged_model(model.model_id, LoggedModelStatus.READY)
        for other in self._models():
            if other.model_id != model.model_id and _DIGEST in other.tags and other.status != LoggedModelStatus.READY:
                self._client().delete_logged_model(other.model_id)  # of a try that broke off, or created twice
        return model

    def _models(self) -> list[LoggedModel]:
        wanted = f"source_run_id = '{self._run.info.run_id}'"
        return list(self._client().search_logged_models([self._run.info.experiment_id], wanted))

    def _logged(self, digest: str) -> list[LoggedModel]:
        """Return the run's models of a file, those that are READY first, then the oldest first."""
        same = [each for each in self._models() if each.tags.get(_DIGEST) == digest]
        return sorted(
            same, key=lambda each: (each.status != LoggedModelStatus.READY, each.creation_timestamp, each.model_id)
        )

    def _create_logged(self, tags: dict[str, str]) -> LoggedModel:
        told = self._run.data.tags.items()
        origin = {name: value for name, value in told if name.startswith(("mlflow.source.", "mlflow.user"))}
        return self._client().create_logged_model(
            self._run.info.experiment_id, "model", self._run.info.run_id, origin | tags
        )

    def _describe(self, model: LoggedModel) -> None:
        """Tell the run of its model, and the model of the run's params and figures, where they do not know yet."""
        create_once(lambda: self._outputs(model), lambda: self._create_output(model))
        run = self._client().get_run(self._run.info.run_id)
        params = {name: value for name, value in run.data.params.items() if name not in model.params}
        if params:
            self._client().log_model_params(model.model_id, params)
        known = {metric.key for metric in model.metrics or []}
        figures = [
            Metric(each.key, each.value, each.timestamp, 0, model_id=model.model_id, run_id=run.info.run_id)
            for each in run.data.to_proto().metrics  # with their times: the run's own are not to be doubled
            if each.step == 0 and each.key not in known
        ]
        for start in range(0, len(figures), 1000):
            self._client().log_batch(run.info.run_id, metrics=figures[start : start + 1000])

    def _outputs(self, model: LoggedModel) -> list[LoggedModelOutput]:
        outputs = self._client().get_run(self._run.info.run_id).outputs
        return [each for each in outputs.model_outputs if each.model_id == model.model_id] if outputs else []

    def _create_output(self, model: LoggedModel) -> LoggedModelOutput:
        output = LoggedModelOutput(model.model_id, step=0)
        self._client().log_outputs(self._run.info.run_id, [output])
        return output


def _save(file: Path, folder: Path, model: LoggedModel) -> None:
    """Write the folder that MLflow loads the model from."""
    content = onnx.load(file)
    mlflow.onnx.save_model(
        content,
        folder,
        mlflow_model=Model(
            artifact_path=model.artifact_location,
            run_id=model.source_run_id,
            model_uuid=model.model_id,
            model_id=model.model_id,
        ),
        signature=ModelSignature(_schema(content.graph.input), _schema(content.graph.output)),
        save_as_external_data=False,
        pip_requirements=[f"{package}=={version(package)}" for package in ("onnx", "onnxruntime", "numpy")],
    )


def _schema(values: Iterable[onnx.ValueInfoProto]) -> Schema:
    """Return names, types and shapes of the graph's own values; a named dimension may be of any length."""
    return Schema(
        [
            TensorSpec(
                onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type),
                tuple(dim.dim_value or -1 for dim in value.type.tensor_type.shape.dim),
                value.name,
            )
            for value in values
        ]
    )
