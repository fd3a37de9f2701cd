"""Logs an ONNX file as a model of MLflow's."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import mlflow
import mlflow.onnx
import onnx
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from mlflow.entities import Run


def log_onnx(run: Run, file: Path) -> Any:
    """Log the file in a run and return MLflow's word on it: `model_id`, `model_uri`."""
    mlflow.set_experiment(experiment_id=run.info.experiment_id)  # else the files go to MLflow's default experiment
    model = onnx.load(file)
    return Model.log(
        artifact_path=None,
        name="model",
        flavor=mlflow.onnx,
        run_id=run.info.run_id,  # rather than mlflow.onnx.log_model, which starts and ends the run
        onnx_model=model,
        signature=ModelSignature(_schema(model.graph.input), _schema(model.graph.output)),
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
