"""Killed at any moment, `dvc repro` goes on from the last finished epoch and ends with the same bits."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from tests.pipeline.checkout import Project

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs Linux's /proc")]
EPOCHS = 60  # far more than pass between looking and killing, four times over


@pytest.fixture(scope="module")
def prepared(checkout: Callable[[str], Project]) -> Project:
    """A project before its training."""
    project = checkout("prepared")
    project.set({"represent.epochs": EPOCHS})
    project.run("ltrec", "data", "digits")
    project.run("dvc", "repro", "prepare")
    return project


def trainers(project: Project) -> list[int]:
    """The processes that train in this project."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().split(b"\0")
            if b"represent" in command and (process / "cwd").resolve() == project.folder.resolve():
                found.append(int(process.name))
        except OSError:
            continue
    return found


def wait_for(what: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


def after_epochs(project: Project, count: int) -> None:
    """Wait until so many new checkpoints were written."""
    files = ".ltrec/resume/represent/*/checkpoint.pt"
    before = {file.stat().st_mtime_ns for file in project.folder.glob(files)}
    seen = set[int]()

    def enough() -> bool:
        for file in project.folder.glob(files):
            seen.add(file.stat().st_mtime_ns)
        return len(seen - before) >= count

    wait_for(enough)


def kill_dvc(project: Project, dvc: subprocess.Popen[str]) -> None:  # noqa: ARG001
    dvc.send_signal(signal.SIGKILL)


def kill_stage(project: Project, dvc: subprocess.Popen[str]) -> None:  # noqa: ARG001
    os.kill(trainers(project)[-1], signal.SIGKILL)


def terminate_stage(project: Project, dvc: subprocess.Popen[str]) -> None:  # noqa: ARG001
    os.kill(trainers(project)[-1], signal.SIGTERM)


def press_ctrl_c(project: Project, dvc: subprocess.Popen[str]) -> None:  # noqa: ARG001
    os.killpg(dvc.pid, signal.SIGINT)


def test_interrupted_in_every_way_it_ends_with_the_same_bits_one_run_and_no_orphan(
    prepared: Project, tmp_path: Path
) -> None:
    whole, project = prepared.copy(tmp_path / "whole"), prepared.copy(tmp_path / "interrupted")
    whole.set({"tracking.enabled": False})
    whole.run("dvc", "repro", "represent")
    for number, interrupt in enumerate((kill_dvc, kill_stage, terminate_stage, press_ctrl_c)):
        dvc = project.start("dvc", "repro", "represent")
        after_epochs(project, 3)
        interrupt(project, dvc)
        output, _ = dvc.communicate(timeout=60)
        assert dvc.returncode != 0
        assert ("going on after epoch" in output) is (number > 0), output
        wait_for(lambda: not trainers(project), seconds=10)
        assert not (project.folder / "artifacts/represent/model.safetensors").exists()

    output = project.run("dvc", "repro", "represent")
    assert "going on after epoch" in output
    model = "artifacts/represent/model.safetensors"
    assert project.read(model) == whole.read(model)
    with closing(sqlite3.connect(project.folder / "mlflow.db")) as store:
        runs = store.execute("SELECT run_uuid, status FROM runs WHERE name = 'represent'").fetchall()
        steps = [step for (step,) in store.execute("SELECT step FROM metrics WHERE key = 'represent/loss'")]
    assert [status for _, status in runs] == ["FINISHED"], output
    assert sorted(steps) == list(range(1, EPOCHS + 1))


def test_killed_when_the_training_is_over_it_is_not_trained_again(prepared: Project, tmp_path: Path) -> None:
    project = prepared.copy(tmp_path / "finished")
    project.set({"represent.epochs": 3, "tracking.enabled": False})
    dvc = project.start("dvc", "repro", "represent")
    wait_for(lambda: list(project.folder.glob(".ltrec/resume/represent/*/result")))
    kill_dvc(project, dvc)
    dvc.communicate(timeout=60)
    wait_for(lambda: not trainers(project), seconds=10)

    output = project.run("dvc", "repro", "featurize")
    assert "represent: this training is already finished; taking its result\n" in output
    taken = project.read("artifacts/represent/model.safetensors")
    assert not list(project.folder.glob(".ltrec/resume/represent/*"))
    assert "already finished" not in project.run("dvc", "repro", "--force", "represent")
    assert project.read("artifacts/represent/model.safetensors") == taken
