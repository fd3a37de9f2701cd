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
EPOCHS = 24  # far more than pass between looking and killing


@pytest.fixture(scope="module")
def uninterrupted(checkout: Callable[[str], Project]) -> bytes:
    project = ready(checkout, "whole")
    project.run("dvc", "repro", "represent")
    return project.read("artifacts/represent/model.safetensors")


def ready(checkout: Callable[[str], Project], name: str) -> Project:
    project = checkout(name)
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
    """Wait until so many checkpoints were written."""
    seen: set[int] = set()

    def enough() -> bool:
        for file in project.folder.glob(".ltrec/resume/represent/*/checkpoint.pt"):
            seen.add(file.stat().st_mtime_ns)
        return len(seen) >= count

    wait_for(enough)


def kill_dvc(project: Project, dvc: subprocess.Popen[str]) -> None:  # noqa: ARG001
    dvc.send_signal(signal.SIGKILL)


def kill_stage(project: Project, dvc: subprocess.Popen[str]) -> None:  # noqa: ARG001
    os.kill(trainers(project)[-1], signal.SIGKILL)


def terminate_stage(project: Project, dvc: subprocess.Popen[str]) -> None:  # noqa: ARG001
    os.kill(trainers(project)[-1], signal.SIGTERM)


def press_ctrl_c(project: Project, dvc: subprocess.Popen[str]) -> None:  # noqa: ARG001
    os.killpg(dvc.pid, signal.SIGINT)


@pytest.mark.parametrize("interrupt", [kill_dvc, kill_stage, terminate_stage, press_ctrl_c])
def test_same_bits_one_run_no_orphan(
    interrupt: Callable[[Project, subprocess.Popen[str]], None],
    checkout: Callable[[str], Project],
    uninterrupted: bytes,
) -> None:
    project = ready(checkout, interrupt.__name__)
    dvc = project.start("dvc", "repro", "represent")
    after_epochs(project, 3)
    interrupt(project, dvc)
    dvc.communicate(timeout=60)
    assert dvc.returncode != 0
    wait_for(lambda: not trainers(project), seconds=10)
    assert not (project.folder / "artifacts/represent/model.safetensors").exists()

    output = project.run("dvc", "repro", "represent")
    assert "going on after epoch" in output
    assert project.read("artifacts/represent/model.safetensors") == uninterrupted
    with closing(sqlite3.connect(project.folder / "mlflow.db")) as store:
        runs = store.execute("SELECT run_uuid, status FROM runs WHERE name = 'represent'").fetchall()
        steps = [step for (step,) in store.execute("SELECT step FROM metrics WHERE key = 'represent/loss'")]
    assert [status for _, status in runs] == ["FINISHED"], output
    assert sorted(steps) == list(range(1, EPOCHS + 1))


def test_killed_when_the_training_is_over_it_is_not_trained_again(
    checkout: Callable[[str], Project], uninterrupted: bytes
) -> None:
    project = ready(checkout, "finished")
    dvc = project.start("dvc", "repro", "represent")
    wait_for(lambda: list(project.folder.glob(".ltrec/resume/represent/*/result")))
    kill_dvc(project, dvc)
    dvc.communicate(timeout=60)
    wait_for(lambda: not trainers(project), seconds=10)

    output = project.run("dvc", "repro", "featurize")
    assert "represent: this training is already finished; taking its result\n" in output
    assert project.read("artifacts/represent/model.safetensors") == uninterrupted
    assert not list(project.folder.glob(".ltrec/resume/represent/*"))
    assert "already finished" not in project.run("dvc", "repro", "--force", "represent")
    assert project.read("artifacts/represent/model.safetensors") == uninterrupted
