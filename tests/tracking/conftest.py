"""A project of its own for each test, with a store that is read without ltrec."""

from __future__ import annotations

import functools
import os
import shutil
import sqlite3
import subprocess
import sys
import textwrap
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from ltrec.config import params as params_module
from ltrec.tracking import sending
from ltrec.tracking.board import Board
from ltrec.tracking.records import Record
from ltrec.tracking.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ltrec.config.params import Params

PARAMS = """
represent: {backbone: {name: cifar_resnet8}}
rebalance:
  joint: {method: joint}
  crt: {method: crt}
tracking: {system_metrics: false}
"""

PREAMBLE = """
import sys, time
from pathlib import Path
from ltrec import process, tracking
from ltrec.config import params as module
from ltrec.stages import recording
process.end_in_order_on_sigterm()
params = module.load(Path("params.yaml"))
"""


class Project:
    """A folder with params and a dataset digest, and what MLflow's database says of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._started: list[subprocess.Popen[str]] = []
        (folder / "params.yaml").write_text(PARAMS, encoding="utf-8")
        (folder / "artifacts/prepare").mkdir(parents=True, exist_ok=True)
        (folder / "artifacts/prepare/stats.json").write_text('{"digest": "of-the-images"}', encoding="utf-8")

    def params(self, **tracking: Any) -> Params:
        loaded = params_module.load(self.folder / "params.yaml")
        changed = loaded.tracking.model_copy(update=tracking)
        return loaded.model_copy(update={"tracking": changed})

    def python(self, code: str) -> str:
        """Run code in a process of its own, with `params` loaded; what it said on both streams."""
        with self.start(code) as process:
            said, _ = process.communicate(timeout=120)
        assert process.returncode == 0, said
        return said

    def start(self, code: str, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", PREAMBLE + textwrap.dedent(code)], cwd=self.folder, env=os.environ | environment,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
        self._started.append(process)
        return process

    def close(self) -> None:
        """End what a failed test left running."""
        for process in self._started:
            process.kill()
            process.communicate()

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.folder / "mlflow.db")) as store:
            return store.execute(query).fetchall()

    def runs(self) -> dict[str, str]:
        """Name → status."""
        return dict(self.ask("SELECT name, status FROM runs"))

    def curve(self, name: str) -> list[tuple[int, float]]:
        """All (step, value) of a metric; none in a store that MLflow is still building."""
        try:
            return sorted(self.ask(f"SELECT step, value FROM metrics WHERE key = '{name}'"))  # noqa: S608
        except sqlite3.OperationalError:
            return []

    def tags(self, run: str) -> dict[str, str]:
        return dict(self.ask(f"SELECT key, value FROM tags JOIN runs USING (run_uuid) WHERE name = '{run}'"))  # noqa: S608

    def records(self) -> list[str]:
        """The runs of records that are not sent."""
        pending = Record.pending(self.folder / ".ltrec/tracking")
        return sorted({record.about.name for record in pending})


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with MLflow's tables and no experiment of ours; to make one takes seconds, to copy it none."""
    folder = tmp_path_factory.mktemp("store")
    code = "from mlflow import MlflowClient; MlflowClient('sqlite:///mlflow.db').search_experiments()"
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, capture_output=True)
    return folder / "mlflow.db"


@pytest.fixture
def empty_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """A project in which MLflow was never used."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "DVC_ROOT", "DVC_EXP_NAME"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "my project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    with closing(Project(folder)) as project:
        yield project


@pytest.fixture
def project(empty_project: Project, migrated: Path) -> Project:
    """A project whose store has its tables."""
    shutil.copyfile(migrated, empty_project.folder / "mlflow.db")
    return empty_project


class SenderHere(sending.Sender):
    """Sends in this process, which has MLflow imported already."""

    def __init__(self) -> None:
        self.key = "here"
        self._complained = False
        self._tracking = sending.records_folder()

    def _flush(self, *, insist: bool = False, again: bool = False) -> str | None:  # noqa: ARG002
        return self._worker.flush()

    @functools.cached_property
    def _worker(self) -> Worker:
        return Worker(self._tracking, self.key, Board(self._tracking / ".senders/here"), 10.0)


class SilentSender:
    """Sends nothing: the records stay."""

    key = "silent"

    def deliver(self, *, insist: bool = False) -> None:
        pass


@pytest.fixture
def sent_here(empty_project: Project, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001
    """Let this process send the runs: what arrives is the same, and it arrives sooner."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")  # so that what the sending sets is undone
    here = SenderHere()
    monkeypatch.setattr("ltrec.tracking.sender", lambda _patience: here)
