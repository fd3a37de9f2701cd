"""Killed processes, dead servers, and many processes at once."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import textwrap
import time
from contextlib import closing
from typing import TYPE_CHECKING

import psutil
import pytest

from ltrec.stages import recording
from ltrec.tracking.board import Board
from tests.tracking.conftest import PREAMBLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.tracking.conftest import Project

pytestmark = pytest.mark.slow

# Each line on stdin is an epoch to record.
STAGE = """
with recording.stage_run(params, "represent") as run:
    for line in sys.stdin:
        run.metrics({"loss": 1 / int(line)}, step=int(line))
"""


def wait_for(what: Callable[[], object], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.05)


def tell(stage: subprocess.Popen[str], *epochs: int) -> None:
    assert stage.stdin is not None
    stage.stdin.write("".join(f"{epoch}\n" for epoch in epochs))
    stage.stdin.flush()


def senders_of(project: Project) -> list[psutil.Process]:
    """The processes that send this project's records."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if str(project.folder / ".ltrec/tracking") in process.cmdline():
                found.append(process)
    return found


class Server:
    """A real `mlflow server` on a port of its own."""

    def __init__(self, project: Project) -> None:
        self.project = project
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--backend-store-uri", f"sqlite:///{self.project.folder}/mlflow.db", "--workers", "1"]
        command += ["--artifacts-destination", str(self.project.folder / "stored")]
        with (self.project.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=self.project.folder, stdout=log, stderr=log, start_new_session=True
            )
        wait_for(self._answers)

    def kill(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return True
        except OSError:
            return False


@pytest.fixture
def server(project: Project) -> Iterator[Server]:
    server = Server(project)
    server.start()
    yield server
    server.kill()


@pytest.mark.parametrize(
    ("environment", "enabled", "senders"), [({}, True, 1), ({"RANK": "1"}, True, 0), ({}, False, 0)]
)
def test_who_records_is_made_ready(
    environment: dict[str, str], enabled: bool, senders: int, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    recording.make_ready(project.params(enabled=enabled))
    found = senders_of(project)
    for process in found:
        process.kill()
        process.wait()
    assert len(found) == senders


def test_a_server_killed_in_the_middle(project: Project, server: Server) -> None:
    environment = {"MLFLOW_TRACKING_URI": server.url}
    stage = project.start(STAGE, **environment)
    tell(stage, 1, 2, 3)
    wait_for(lambda: [step for step, _ in project.curve("loss")] == [1, 2, 3])
    server.kill()
    tell(stage, 4, 5)
    time.sleep(4)  # it tries meanwhile
    tell(stage, 6)
    said, _ = stage.communicate(timeout=60)
    assert stage.returncode == 0
    assert said.count("warning") == 1, said
    assert f"MLflow at {server.url}" in said
    assert "`ltrec sync`" in said
    assert len(project.curve("loss")) == 3
    assert project.records() == ["represent"]

    server.start()
    with project.start("tracking.sync()", **environment) as sync:
        said, _ = sync.communicate(timeout=120)
    assert said == "sync: 1 of 1 run(s) sent\n"
    assert project.curve("loss") == [(epoch, 1 / epoch) for epoch in range(1, 7)]
    assert project.runs()["represent"] == "FINISHED"
    assert project.records() == []


def test_files_and_the_model_go_through_a_server(project: Project, server: Server) -> None:
    code = """
    with recording.stage_run(params, "export") as run:
        run.file(Path("params.yaml"), "settings")
    """
    with project.start(code, MLFLOW_TRACKING_URI=server.url) as stage:
        said, _ = stage.communicate(timeout=120)
    assert said == ""
    (found,) = (project.folder / "stored").rglob("params.yaml")
    assert found.parent.name == "settings"
    assert not (project.folder / "mlruns").exists()


def test_a_dead_server_costs_a_line_and_little_time(project: Project) -> None:
    code = """
    start = time.monotonic()
    with recording.stage_run(params, "represent") as run:
        run.metrics({"loss": 1.0}, step=1)
    assert time.monotonic() - start < 30  # MLflow alone tries for four minutes
    """
    with project.start(code, MLFLOW_TRACKING_URI="http://127.0.0.1:1") as stage:
        said, _ = stage.communicate(timeout=120)
    assert stage.returncode == 0, said
    assert said.count("\n") == 1, said
    assert "MLflow at http://127.0.0.1:1: [Errno 111] Connection refused; what it lacks is kept in " in said
    # The next stage finds the project's own store, and the record of the first.
    project.python("with recording.stage_run(params, 'evaluate'): pass")
    assert project.curve("loss") == [(1, 1.0)]
    assert project.records() == []


def test_a_server_that_accepts_and_says_nothing_loses_no_figures_and_is_waited_for_once(project: Project) -> None:
    stage = """
    start = time.monotonic()
    with recording.stage_run(params, "rebalance", variant="crt") as run:
        run.metrics({"val": 0.5})
    with recording.stage_run(params, "rebalance", variant="crt") as run:  # as `evaluate` does
        run.metrics({"test": 0.25})
    print(time.monotonic() - start < 4.5)
    """
    with socket.create_server(("127.0.0.1", 0), backlog=64) as mute:
        uri = f"http://me:secret@127.0.0.1:{mute.getsockname()[1]}"
        environment = {"MLFLOW_TRACKING_URI": uri}
        for variant in ("crt", "joint"):
            with project.start(stage.replace("crt", variant), **environment) as process:
                said, _ = process.communicate(timeout=60)
            assert said.count("warning") == 1, said
            assert f"MLflow at {uri.replace('me:secret', '***')}: no answer within 3 s" in said
            assert said.endswith("True\n")
        with project.start("tracking.sync()", **environment) as sync:
            said, _ = sync.communicate(timeout=120)
    assert said.endswith("sync: 0 of 2 run(s) sent, 2 kept\n")
    assert project.python("tracking.sync()") == "sync: 2 of 2 run(s) sent\n"
    for name in ("val", "test"):
        assert len(project.curve(name)) == 2


def under_dvc(project: Project, code: str, stages: int, **environment: str) -> tuple[list[str], list[psutil.Process]]:
    """Run a stage some times as DVC does, from one process that outlives them: what each said, and what sends then."""
    code = f"""
    import os, subprocess
    stage = {PREAMBLE + textwrap.dedent(code)!r}
    for number in range({stages}):
        done = subprocess.run(
            [sys.executable, "-c", stage], env=os.environ | {{"DVC_STAGE": str(number)}}, capture_output=True, text=True
        )
        print((done.stdout + done.stderr).strip().replace(chr(10), "|"), flush=True)
    sys.stdin.read()
    """
    dvc = project.start(code, **environment)
    assert dvc.stdout is not None
    said = [dvc.stdout.readline() for _ in range(stages)]
    senders = senders_of(project)
    dvc.communicate(timeout=20)
    return said, senders


MEASURED = """
import os
recording.make_ready(params)
start = time.monotonic()
with recording.stage_run(params, "rebalance", variant=os.environ["DVC_STAGE"]) as run:
    run.metrics({"few": 0.5})
    WHILE_IT_RUNS
print(time.monotonic() - start < 1)
"""


def test_one_sender_serves_the_stages_of_dvc_and_ends_with_it(project: Project) -> None:
    said, senders = under_dvc(project, MEASURED.replace("WHILE_IT_RUNS", "pass"), 4)
    assert said[1:] == ["True\n"] * 3  # the first may wait for MLflow's import
    assert len(senders) == 1
    assert len(project.curve("few")) == 4
    psutil.wait_procs(senders, timeout=20)
    assert senders_of(project) == []
    assert not list(project.folder.glob(".ltrec/tracking/.senders/*"))


def test_a_server_that_says_nothing_is_waited_for_once_under_dvc(project: Project) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as mute:
        uri = f"http://127.0.0.1:{mute.getsockname()[1]}"
        said, senders = under_dvc(project, MEASURED.replace("WHILE_IT_RUNS", "pass"), 4, MLFLOW_TRACKING_URI=uri)
    assert [line.partition("|")[0] for line in said[1:]] == ["True"] * 3, said
    assert all("no answer within 3 s" in line for line in said)
    psutil.wait_procs(senders, timeout=20)
    assert senders_of(project) == []
    assert project.records() == [f"rebalance@{number}" for number in range(4)]


def test_a_stopped_sender_is_waited_for_once_and_replaced_later(project: Project) -> None:
    stop = "import psutil; [time.sleep(3) or sender.suspend() for sender in psutil.Process().children()]"
    said, senders = under_dvc(project, MEASURED.replace("WHILE_IT_RUNS", stop), 4)
    (stopped,) = senders
    assert stopped.status() == psutil.STATUS_STOPPED
    assert all("the process that sends does not react" in line for line in said)
    assert [line.partition("|")[0] for line in said[1:]] == ["True"] * 3, said
    assert "4 kept" in project.python("tracking.sync()")
    (board,) = project.folder.glob(".ltrec/tracking/.senders/*/board")
    Board(board.parent).set("beat", 1.0)  # long ago
    assert project.python("tracking.sync()") == "sync: 4 of 4 run(s) sent\n"
    assert not stopped.is_running()


@pytest.mark.parametrize("when", ["during the stage", "before its end"])
def test_a_sender_that_is_killed_is_replaced(when: str, project: Project) -> None:
    code = f"""
    import psutil
    with recording.stage_run(params, "represent") as run:
        run.metrics({{"loss": 1.0}}, step=1)
        (sender,) = psutil.Process().children()
        sender.kill()
        time.sleep({0 if when == "before its end" else 1})
    """
    assert project.python(code) == ""
    assert project.records() == []
    assert project.runs()["represent"] == "FINISHED"


def test_a_sender_that_cannot_work_costs_a_line(project: Project) -> None:
    code = """
    import sys
    sys.executable = "/bin/false"
    with recording.stage_run(params, "represent") as run:
        run.metrics({"loss": 1.0}, step=1)
    """
    said = project.python(code)
    assert said.count("\n") == 1, said
    assert "the process that sends has ended; what it lacks is kept in " in said
    assert project.records() == ["represent"]


@pytest.mark.parametrize("trouble", ["a folder", "locked", "no database"])
def test_a_database_that_cannot_be_used_costs_a_line_and_little_time(trouble: str, project: Project) -> None:
    database = project.folder / "mlflow.db"
    code = """
    recording.make_ready(params)
    time.sleep(4)  # the stage works
    start = time.monotonic()
    with recording.stage_run(params, "represent") as run:
        run.metrics({"loss": 1.0}, step=1)
    assert time.monotonic() - start < 4
    """
    with contextlib.ExitStack() as held:
        if trouble == "a folder":
            database.unlink()
            database.mkdir()
            reason = f"{database} is a folder"
        elif trouble == "no database":
            database.write_text("text" * 1000, encoding="utf-8")
            reason = "file is not a database"
        else:
            store = held.enter_context(closing(sqlite3.connect(database, isolation_level=None)))
            store.execute("BEGIN EXCLUSIVE")
            reason = "database is locked"
        said = project.python(code)
    assert said.count("\n") == 1, said
    assert f": {reason}" in said
    assert project.records() == ["represent"]


def test_killed_and_continued_is_one_run(project: Project) -> None:
    settings = project.folder / "params.yaml"
    settings.write_text(settings.read_text(encoding="utf-8").replace("system_metrics: false", "system_metrics: true"))
    load = "system/cpu_utilization_percentage"
    stage = project.start(STAGE)
    tell(stage, 1, 2, 3)
    wait_for(lambda: len(project.curve("loss")) == 3 and project.curve(load))
    stage.kill()
    stage.communicate()
    runs = project.ask("SELECT run_uuid, name FROM runs ORDER BY name")
    assert project.runs()["represent"] in {"RUNNING", "KILLED"}

    again = project.start(STAGE)
    tell(again, 1, 2, 3, 4)  # a resumed training tells its history
    wait_for(lambda: len(project.curve(load)) == 2)
    said, _ = again.communicate(timeout=60)
    assert said == ""
    assert project.ask("SELECT run_uuid, name FROM runs ORDER BY name") == runs
    assert project.curve("loss") == [(epoch, 1 / epoch) for epoch in range(1, 5)]
    assert project.runs()["represent"] == "FINISHED"


def test_killed_and_left_is_told_and_no_process_stays(project: Project) -> None:
    stage = project.start(STAGE)
    tell(stage, 1)
    wait_for(project.records)
    wait_for(lambda: "loss" in next(project.folder.rglob("lines.jsonl")).read_text(encoding="utf-8"))
    workers = psutil.Process(stage.pid).children(recursive=True)
    assert workers
    stage.kill()
    stage.communicate()
    psutil.wait_procs(workers, timeout=30)
    assert not any(worker.is_running() for worker in workers)
    assert project.runs()["represent"] == "KILLED"
    assert project.curve("loss") == [(1, 1.0)]
    assert project.records() == []


def test_killed_with_its_sender_is_told_by_the_next(project: Project) -> None:
    stage = project.start(STAGE)
    tell(stage, 1)
    wait_for(lambda: project.curve("loss"))
    stage.kill()
    for sender in senders_of(project):
        sender.kill()
    stage.communicate()
    project.python("with recording.stage_run(params.model_copy(update={'seed': 1}), 'evaluate'): pass")
    assert project.runs()["represent"] == "KILLED"
    assert project.curve("loss") == [(1, 1.0)]
    assert project.records() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_whole_group_is_told(number: signal.Signals, project: Project) -> None:
    """As a terminal's Ctrl-C is, and what ends a cluster's job."""
    stage = project.start(STAGE)
    tell(stage, 1)
    wait_for(lambda: project.curve("loss"))
    os.killpg(stage.pid, number)
    stage.communicate(timeout=60)
    assert stage.returncode == (128 + number if number == signal.SIGTERM else -number)
    assert set(project.runs().values()) == {"KILLED"}
    assert project.records() == []


def test_processes_that_meet_in_a_new_store(empty_project: Project) -> None:
    code = """
    with recording.stage_run(params, "rebalance", variant=sys.stdin.readline().strip()) as run:
        run.metrics({"few": 0.5})
    assert "mlflow" not in sys.modules
    """
    variants = ("a", "b", "c", "d")
    stages = [empty_project.start(code) for _ in variants]
    for variant, stage in zip(variants, stages, strict=True):
        assert stage.stdin is not None
        stage.stdin.write(f"{variant}\n")
        stage.stdin.flush()
    for stage in stages:
        said, _ = stage.communicate(timeout=180)
        assert (stage.returncode, said) == (0, "")
    runs = empty_project.runs()
    assert sorted(name for name in runs if not name.startswith("pipeline ")) == list(variants)
    assert len(runs) == 5
    assert len(empty_project.ask("SELECT DISTINCT value FROM tags WHERE key = 'mlflow.parentRunId'")) == 1
    assert empty_project.curve("few") == [(0, 0.5)] * 4
