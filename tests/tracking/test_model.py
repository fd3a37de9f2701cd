"""The champion in MLflow's registry, loaded and served as its users would."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from ltrec.stages import recording

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from tests.tracking.conftest import Project

# The mean of each channel is a logit: an image that is all red is of class 0.
RED = np.zeros((2, 4, 4, 3), dtype=np.uint8)
RED[..., 0] = 200
READY = 2  # in MLflow's tables


def write_model(path: Path, scale: float) -> None:
    """Images uint8 (N, 4, 4, 3) → logits and probabilities (N, 3)."""
    values = [helper.make_tensor("scale", TensorProto.FLOAT, [], [scale])]
    values.append(helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2]))
    nodes = [
        helper.make_node("Cast", ["images"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["numbers", "axes"], ["means"], keepdims=0),
        helper.make_node("Mul", ["means", "scale"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", 4, 4, 3])
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3]) for name in ("logits", "probabilities")
    ]
    graph = helper.make_graph(nodes, "tiny", [images], outputs, values)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, path)


def export(project: Project, scale: float) -> None:
    path = project.folder / "model.onnx"
    write_model(path, scale)
    with recording.stage_run(project.params(), "export") as run:
        run.model(path, {"variant": "crt"})


def versions(project: Project) -> list[int]:
    return [version for (version,) in project.ask("SELECT version FROM model_versions ORDER BY version")]


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # MLflow's own
def test_registered_once_with_signature_and_alias(project: Project, capfd: pytest.CaptureFixture[str]) -> None:
    import mlflow
    from mlflow import MlflowClient

    export(project, 1 / 100)
    export(project, 1 / 100)
    assert versions(project) == [1]
    assert capfd.readouterr() == ("", "")
    uri = f"sqlite:///{project.folder}/mlflow.db"
    champion = MlflowClient(uri).get_model_version_by_alias("ltrec", "champion")
    assert champion.tags["variant"] == "crt"
    assert project.runs() == {next(iter(project.runs())): "FINISHED"}
    assert champion.run_id == project.ask("SELECT run_uuid FROM runs")[0][0]

    mlflow.set_tracking_uri(uri)
    loaded = mlflow.pyfunc.load_model("models:/ltrec@champion")
    schema = loaded.metadata.signature
    assert [(spec.name, str(spec.type), spec.shape) for spec in schema.inputs] == [("images", "uint8", (-1, 4, 4, 3))]
    assert [(spec.name, str(spec.type), spec.shape) for spec in schema.outputs] == [
        ("logits", "float32", (-1, 3)),
        ("probabilities", "float32", (-1, 3)),
    ]
    answer = loaded.predict(RED)
    np.testing.assert_allclose(answer["logits"], [[2, 0, 0]] * 2, rtol=1e-6)
    # softmax(2, 0, 0) = e² / (e² + 2), 1 / (e² + 2)
    np.testing.assert_allclose(answer["probabilities"], [[0.7869860, 0.1065070, 0.1065070]] * 2, rtol=1e-5)

    export(project, 1 / 50)
    assert versions(project) == [1, 2]
    assert str(MlflowClient(uri).get_model_version_by_alias("ltrec", "champion").version) == "2"
    export(project, 1 / 100)
    assert versions(project) == [1, 2]
    assert str(MlflowClient(uri).get_model_version_by_alias("ltrec", "champion").version) == "1"


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # MLflow's own
@pytest.mark.parametrize("default", ["is there", "deleted"])
def test_logged_into_the_projects_experiment(default: str, project: Project, capfd: pytest.CaptureFixture[str]) -> None:
    """MLflow's own choice is experiment 0, which many servers' keepers delete."""
    from mlflow import MlflowClient

    if default == "deleted":
        MlflowClient(f"sqlite:///{project.folder}/mlflow.db").delete_experiment("0")
    with recording.stage_run(project.params(), "evaluate") as run:
        run.params({"bootstrap": 50})
        run.metrics({"all": 0.5})
    export(project, 1 / 100)
    assert capfd.readouterr().err == ""
    assert project.ask("SELECT e.name, m.status FROM logged_models m JOIN experiments e USING (experiment_id)") == [
        ("ltrec", READY)
    ]
    assert versions(project) == [1]
    assert len(list(project.folder.glob("mlruns/models/*/artifacts/model.onnx"))) == 1
    # The model's page shows what the run's does, and the run's figure is still there once.
    assert project.ask("SELECT param_key, param_value FROM logged_model_params") == [("bootstrap", "50")]
    assert project.ask("SELECT metric_name, metric_value FROM logged_model_metrics") == [("all", 0.5)]
    assert project.curve("all") == [(0, 0.5)]


@pytest.fixture
def served(project: Project) -> Iterator[str]:
    export(project, 1 / 100)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/ltrec@champion"]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # MLflow looks for uvicorn there
    with (project.folder / "server.log").open("wb") as log:
        server = subprocess.Popen(
            [*command, "--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)],
            cwd=project.folder, stdout=log, stderr=log, start_new_session=True,
            env=os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{project.folder}/mlflow.db", "PATH": path},
        )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        end = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"{url}/ping", timeout=5).close()  # noqa: S310
                break
            except OSError:
                assert server.poll() is None, (project.folder / "server.log").read_text()
                assert time.monotonic() < end, (project.folder / "server.log").read_text()
                time.sleep(0.2)
        yield url
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def served_logits(url: str, images: NDArray[Any]) -> list[list[float]]:
    body = json.dumps({"inputs": {"images": images.tolist()}}).encode()
    request = urllib.request.Request(f"{url}/invocations", body, {"Content-Type": "application/json"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
        answer = json.load(response)
    return answer["predictions"]["logits"]  # type: ignore[no-any-return]


@pytest.mark.slow
def test_served_by_mlflow(served: str) -> None:
    np.testing.assert_allclose(served_logits(served, RED), [[2, 0, 0]] * 2, rtol=1e-6)
    # What the README warns of: MLflow cuts fractions off, and refuses what no byte can hold.
    np.testing.assert_array_equal(served_logits(served, RED / 255), np.zeros((2, 3)))
    with pytest.raises(urllib.error.HTTPError, match="400"):
        served_logits(served, RED + 100.0)
