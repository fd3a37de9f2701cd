"""Several processes make the numbers of one; one that is lost costs an epoch at most, and a clear line."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from ltrec.compute import distributed
from ltrec.compute.distributed import SINGLE_PROCESS, joined
from ltrec.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

CPU = torch.device("cpu")
EPOCHS = 25
# Batch norm would look at each process's own part of a batch, so it stays as it began. Of 7 images one process gets 4.
_NORMS = ["bn1", *(f"layer{layer}.0.bn{n}" for layer in (1, 2, 3) for n in (1, 2))]
PARAMS: dict[str, Any] = {
    "device": "cpu",
    "prepare": {"split": {"val": 3, "test": 3}},
    "represent": {
        "backbone": {"name": "cifar_resnet8"},
        "freeze": {"by": "name", "modules": _NORMS},
        "image": {"size": 16, "resize": 16},
        "augment": {"crop": {"name": "pad", "padding": 2}, "jitter": 0.4},
        "sampler": {"name": "progressively_balanced"},
        "optimizer": {"name": "sgd", "lr": 0.01},
        "epochs": EPOCHS,
        "batch_size": 7,
        "clip_norm": 5.0,
        "loss": {"name": "cross_entropy", "label_smoothing": 0.1},
        "ema": {"decay": 0.9},
    },
    "featurize": {"views": 1, "batch_size": 5},
    "rebalance": {"joint": {"method": "joint"}},
    "tracking": {"enabled": False},
}


class Project:
    """A folder with two classes of images and parameters; commands run in processes of their own."""

    def __init__(self, folder: Path, **represent: Any) -> None:
        self.folder = folder
        random = np.random.default_rng(0)
        for channel, (name, count) in enumerate({"red": 16, "green": 12}.items()):
            (folder / "data" / name).mkdir(parents=True)
            for n in range(count):
                pixels = random.integers(0, 160, (16, 16, 3)).astype(np.uint8)
                pixels[..., channel] += 60
                Image.fromarray(pixels).save(folder / "data" / name / f"{n}.png")
        (folder / "params.yaml").write_text(
            json.dumps(PARAMS | {"represent": PARAMS["represent"] | represent}), encoding="utf-8"
        )
        self.env = {name: value for name, value in os.environ.items() if not name.startswith(("DVC_", "MLFLOW_"))}
        self.env |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self.run("prepare")

    def command(self, stage: str, *torchrun: str) -> list[str]:
        launcher = ["-m", "torch.distributed.run", *torchrun] if torchrun else []
        return [sys.executable, *launcher, "-m", "ltrec", stage]

    def run(self, stage: str, processes: int = 1) -> str:
        torchrun = ["--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
        done = subprocess.run(
            self.command(stage, *torchrun), cwd=self.folder, env=self.env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stderr

    def history(self) -> np.ndarray[Any, Any]:
        with (self.folder / "artifacts/represent/history.csv").open(encoding="utf-8", newline="") as file:
            return np.array([[float(value) for value in row.values()] for row in csv.DictReader(file)])

    def forget(self) -> None:
        shutil.rmtree(self.folder / ".ltrec")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project(tmp_path_factory.mktemp("project"))


@pytest.mark.slow
def test_two_processes_have_the_curve_of_one(project: Project) -> None:
    project.run("represent")
    alone = project.history()
    project.run("featurize")
    banks = {
        split: load_file(project.folder / f"artifacts/featurize/{split}.safetensors") for split in ("train", "val")
    }
    said = project.run("featurize", 2)
    assert said.count("featurize: 6 val images") == 1, "one process speaks"
    for split, bank in banks.items():
        shared = load_file(project.folder / f"artifacts/featurize/{split}.safetensors")
        assert torch.equal(shared["labels"], bank["labels"])
        torch.testing.assert_close(shared["features"], bank["features"], atol=1e-5, rtol=1e-5)

    project.forget()
    said = project.run("represent", 2)
    assert "lost" not in said
    together = project.history()
    assert len(alone) == len(together) == EPOCHS
    assert alone[-1, 1] < 0.9 * alone[0, 1], "it learns"
    np.testing.assert_allclose(together[:, 1], alone[:, 1], atol=1e-5, rtol=0)  # 50 steps
    np.testing.assert_allclose(together[:, 2:], alone[:, 2:], atol=1e-9)  # accuracies and learning rates


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, np.ndarray[Any, Any]]:
    """A project that two processes have trained, put back to before that, and their history."""
    project = Project(tmp_path_factory.mktemp("trained"), epochs=40)
    project.run("represent", 2)
    whole = project.history()
    project.forget()
    return project, whole


@pytest.mark.slow
@pytest.mark.parametrize("machines", [1, 2])
def test_a_killed_process_costs_an_epoch_at_most(machines: int, trained: tuple[Project, np.ndarray[Any, Any]]) -> None:
    project, whole = trained
    (project.folder / "artifacts/represent/history.csv").unlink()
    shutil.rmtree(project.folder / ".ltrec", ignore_errors=True)
    torchrun = [f"--nnodes={machines}", f"--nproc-per-node={2 // machines}", "--max-restarts=3"]
    torchrun += ["--rdzv-backend=c10d", "--rdzv-id=test", f"--rdzv-endpoint=localhost:{free_port()}"]
    # As docs/scaling.md has it for more than one machine.
    env = project.env | {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"} if machines > 1 else project.env
    running = [
        subprocess.Popen(
            project.command("represent", *torchrun), cwd=project.folder, env=env, stderr=subprocess.PIPE, text=True
        )
        for _ in range(machines)
    ]
    deadline = time.monotonic() + 120
    while not list(project.folder.glob(".ltrec/**/checkpoint.pt")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    children = subprocess.run(["pgrep", "-P", str(running[-1].pid)], capture_output=True, text=True, check=True)
    os.kill(int(children.stdout.split()[-1]), signal.SIGKILL)
    said = "".join(launcher.communicate(timeout=240)[1] for launcher in running)
    assert [launcher.returncode for launcher in running] == [0] * machines, said
    assert "represent: going on after epoch" in said
    np.testing.assert_array_equal(project.history(), whole)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return int(free.getsockname()[1])


@pytest.fixture
def env(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in distributed._ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_without_torchrun_it_is_alone(env: pytest.MonkeyPatch) -> None:  # noqa: ARG001
    with joined(CPU) as world:
        assert world == SINGLE_PROCESS
        assert world.first


def test_half_an_environment_is_one_line(env: pytest.MonkeyPatch) -> None:
    env.setenv("WORLD_SIZE", "2")
    env.setenv("RANK", "0")
    missing = r"^torchrun: LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT not set"
    with pytest.raises(UserError, match=missing), joined(CPU):
        pass


@pytest.mark.parametrize("size", ["", "two"])
def test_what_is_no_number_is_one_line(env: pytest.MonkeyPatch, size: str) -> None:
    for name, value in zip(distributed._ENVIRONMENT, ("0", size, "0", "2", "localhost", "1"), strict=True):
        env.setenv(name, value)
    with pytest.raises(UserError, match=f"^torchrun: WORLD_SIZE is no number: '{size}'"), joined(CPU):
        pass


def test_ranks_that_do_not_come_are_one_line(env: pytest.MonkeyPatch) -> None:
    given = ("0", "2", "0", "2", "localhost", str(free_port()))
    for name, value in zip(distributed._ENVIRONMENT, given, strict=True):
        env.setenv(name, value)
    env.setattr(distributed, "_TIMEOUT", timedelta(seconds=1))
    with pytest.raises(UserError, match=r"^torchrun: rank 0 of 2 lost the others \(") as raised, joined(CPU):
        pass
    assert "\n" not in str(raised.value)


def test_fewer_images_than_processes_are_refused() -> None:
    from ltrec.stages import represent

    represent._require_two_images_each(4, 1, distributed.World(0, 2))
    represent._require_two_images_each(9, 2, distributed.World(0, 2))
    with pytest.raises(UserError, match=r"batch_size: 3 images an update leave fewer than two for each of 2 process"):
        represent._require_two_images_each(3, 1, distributed.World(0, 2))
    with pytest.raises(
        UserError, match=r"batch_size, represent.accumulate: 7 images .* 2 process\(es\), 2 micro-batch"
    ):
        represent._require_two_images_each(7, 2, distributed.World(0, 2))


def test_a_batch_is_put_together_again() -> None:
    rows = torch.arange(6.0).reshape(3, 2)
    assert SINGLE_PROCESS.gather(rows, 3) is rows
    assert SINGLE_PROCESS.from_first("content") == "content"
