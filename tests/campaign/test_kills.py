"""Kills at random moments: however often, a pipeline ends as one that nobody disturbed."""

from __future__ import annotations

import contextlib
import math
import os
import random
import signal
import subprocess
import time
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import psutil
import pytest

from tests.campaign.small_pipeline import (
    STAGES,
    held_by_mlflow,
    lost_files,
    outputs,
    processes,
    small_project,
    temporaries,
    tracebacks,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from typing import Any

    from tests.campaign.conftest import Tally
    from tests.pipeline.checkout import Project

KILLS = int(os.environ.get("LTREC_CAMPAIGN_KILLS", "100"))
EACH = 15  # kills a test: some in each stage
SIGNALS = [signal.SIGKILL] * 6 + [signal.SIGTERM, signal.SIGINT]
EMPTY_STORE = "from mlflow import MlflowClient; MlflowClient('sqlite:///mlflow.db').search_experiments()"
BY_HAND = [["ltrec", *stage] for stage in STAGES]
UNDER_DVC = [["dvc", "repro", "@".join(stage)] for stage in STAGES]
STUCK, NEVER = 600.0, 1000  # seconds without a kill after which nothing is waited for any more, and the code for it

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(3600)]


class Whole(NamedTuple):
    """A pipeline that nobody disturbed."""

    start: Project
    start_with_store: Project
    """The same with MLflow's empty tables, which take longer to make than a stage."""
    outputs: dict[str, str]
    held: Counter[tuple[Any, ...]]
    seconds: float
    """How long a stage took on average."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    start = small_project(tmp_path_factory.mktemp("start") / "project")
    with_store = start.copy(tmp_path_factory.mktemp("store") / "project")
    with_store.run("python", "-c", EMPTY_STORE)
    project = with_store.copy(tmp_path_factory.mktemp("whole") / "project")
    began = time.monotonic()
    undisturbed = Disturbed(project, random.Random(0), 0)  # noqa: S311
    assert undisturbed.run([["dvc", "repro"]], kills=0), undisturbed.said()
    seconds = (time.monotonic() - began) / len(STAGES)
    assert temporaries(project.folder) == []
    return Whole(start, with_store, outputs(project.folder), held_by_mlflow(project.folder), seconds)


class Disturbed:
    """A pipeline whose processes are killed, with all that they say in one file.

    Args:
        project: Where it runs.
        rng: Draws when what is killed and how.
        pause: Seconds between two kills, at most.
    """

    def __init__(self, project: Project, rng: random.Random, pause: float) -> None:
        self.project = project
        self.kills: list[str] = []
        self.lost_files = 0
        self._rng, self._pause = rng, pause
        self._log = project.folder.with_suffix(".log")

    def run(self, commands: Sequence[list[str]], kills: int) -> bool:
        """Run commands in turn, each until it succeeds, and return whether it came to an end.

        The kills are shared out among the commands at random; what a command does not take the next one gets.
        """
        share = Counter(self._rng.choices(range(len(commands)), k=kills))
        due = 0
        for place, command in enumerate(commands):
            due, spared = due + share[place], 0
            while code := self._attempt(command, due):
                # The first attempt after the last kill may fail of it, the second may not.
                spared = spared + 1 if len(self.kills) == due else 0
                if spared > 1 or code == NEVER:
                    return False
                if spared or self._rng.random() < 0.5:
                    self._rest()
                self._mend()
        return True

    def said(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    def left(self) -> list[str]:
        """Return the commands of processes that do not go away by themselves, after ending them."""
        left = []
        for process in self._rest():
            with contextlib.suppress(psutil.NoSuchProcess):
                left.append(" ".join(process.cmdline()))
                process.kill()
        return left

    def _rest(self) -> list[psutil.Process]:
        return psutil.wait_procs(processes(self.project.folder), timeout=30)[1]

    def _mend(self) -> None:
        """Remove what is left of the files that DVC was killed over, as docs/reliability.md says."""
        for file in lost_files(self.project.folder):
            self.lost_files += 1
            file.unlink()

    def _attempt(self, command: list[str], kills: int) -> int:
        """Run a command and kill at random moments until there were so many; return its exit code, or `NEVER`."""
        with self._log.open("ab") as log:
            log.write(f"$ {' '.join(command)}\n".encode())
            log.flush()
            process = subprocess.Popen(
                command, cwd=self.project.folder, env=self.project.env, stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
            while len(self.kills) < kills:
                if self._ends(process):
                    return process.returncode
                self._kill(process, log.fileno())
        try:
            return process.wait(timeout=STUCK)
        except subprocess.TimeoutExpired:
            return NEVER

    def _ends(self, process: subprocess.Popen[bytes]) -> bool:
        """Wait for a random time, half of the times only until the next file is written; return whether it ended."""
        end = time.monotonic() + self._rng.uniform(0, self._pause)
        writes, before = self._rng.choice([0, 0, 0, 1, 2, 4]), self._state()
        while time.monotonic() < end and process.poll() is None:
            time.sleep(0.01)
            if writes and (now := self._state()) != before:
                before, writes = now, writes - 1
                if not writes:
                    time.sleep(self._rng.choice([0, 0.001, 0.01, 0.1]))
                    break
        return process.poll() is not None

    def _state(self) -> frozenset[tuple[str, int]]:
        """Return the files that stages, sender and DVC write, with their times."""
        found = set()
        for pattern in ("artifacts/**/*", ".ltrec/**/*", "mlflow.db*", "dvc.lock"):
            for file in self.project.folder.glob(pattern):
                try:
                    found.add((str(file), file.stat().st_mtime_ns))
                except OSError:
                    continue
        return frozenset(found)

    def _kill(self, process: subprocess.Popen[bytes], log: int) -> None:
        """Send a random signal to a random one of the processes that are there, or to all."""
        kinds = self._kinds()
        kind, number = self._rng.choice(sorted(kinds)), self._rng.choice(SIGNALS)
        what = f"{number.name} to the {kind} of {_stage(kinds)}"
        try:
            if kind == "group":
                os.killpg(process.pid, number)
            else:
                self._rng.choice(kinds[kind]).send_signal(number)
        except (ProcessLookupError, psutil.NoSuchProcess):  # it has just ended
            return
        self.kills.append(what)
        os.write(log, f"# {what}\n".encode())

    def _kinds(self) -> dict[str, list[psutil.Process]]:
        """Return the processes that can be killed now by what they are."""
        kinds: dict[str, list[psutil.Process]] = {"group": []}
        for process in processes(self.project.folder):
            with contextlib.suppress(psutil.NoSuchProcess):
                if kind := _kind(process):
                    kinds.setdefault(kind, []).append(process)
        return kinds


def _kind(process: psutil.Process) -> str | None:
    """Return what a process is; None for the small helpers of others, such as git."""
    words = process.cmdline()
    if "--multiprocessing-fork" in words or "ltrec.tracking" in " ".join(words):
        return "sender"
    if any(word.endswith("/ltrec") for word in words):
        parent = process.parent()
        return "decoder" if parent is not None and parent.cmdline() == words else "stage"
    return "dvc" if any(word.endswith("/dvc") for word in words) else None


def _stage(kinds: dict[str, list[psutil.Process]]) -> str:
    """Return the stage that is at work."""
    with contextlib.suppress(IndexError, psutil.NoSuchProcess):
        for process in kinds.get("stage", []):
            return str(process.cmdline()[2])
    return "no stage"


@pytest.mark.parametrize("number", range(math.ceil(KILLS / EACH)))
def test_it_ends_as_if_nobody_had_disturbed_it(
    number: int, whole: Whole, tmp_path: Path, tally: Tally, campaign_seed: int
) -> None:
    wanted, repeated = min(EACH, KILLS - EACH * number), 0
    while (left := wanted - tally.counts.get("kills", 0)) > 0:
        seed = f"{campaign_seed}.{number}.{repeated}"
        tally.seeds.append(seed)
        rng = random.Random(seed)  # noqa: S311 - when to kill what
        start = whole.start if rng.random() < 0.3 else whole.start_with_store
        disturbed = Disturbed(start.copy(tmp_path / str(repeated) / "project"), rng, 1.3 * whole.seconds)
        # Under DVC each attempt begins with DVC's own start; by hand, more of the kills meet the stages.
        ended = disturbed.run(UNDER_DVC if number % 2 else BY_HAND, left)
        tally.add("kills", len(disturbed.kills))
        tally.add("files of DVC's removed", disturbed.lost_files)
        for kind in ("stage", "dvc", "decoder", "sender", "group"):
            tally.add(f"of the {kind}", sum(f" to the {kind} of " in kill for kill in disturbed.kills))
        for what, line in faults(disturbed, whole, ended=ended):
            tally.fault(what, f"{seed}: {line}")
        tally.add("done", ended)
        tally.add("same", not tally.faults)
        if tally.faults:
            pytest.fail("\n".join([*tally.faults, f"killed: {disturbed.kills}", disturbed.said()]), pytrace=False)
        repeated += 1


def faults(disturbed: Disturbed, whole: Whole, *, ended: bool) -> Iterator[tuple[str, str]]:
    """Yield what is not as it would be if nobody had killed anything: which kind of fault, and a line about it."""
    folder = disturbed.project.folder
    yield from (("orphans", line) for line in disturbed.left())
    yield from (("tracebacks", line) for line in tracebacks(disturbed.said()))
    if not ended:
        yield "stuck", "it did not end, or not well, though nobody killed anything any more"
        return
    found = outputs(folder)
    for path in sorted(found.items() ^ whole.outputs.items()):
        yield "different", path[0]
    disturbed.project.run("ltrec", "sync")
    # Where dvc.lock was lost `represent` may run again, and its checkpoint then waits for another `featurize`.
    left = [line for line in temporaries(folder) if not (disturbed.lost_files and line.startswith(".ltrec/resume"))]
    yield from (("temporaries", line) for line in left)
    held = held_by_mlflow(folder)
    yield from (("lost", f"{fact} × {number}") for fact, number in (whole.held - held).items())
    yield from (("doubled", f"{fact} × {number}") for fact, number in (held - whole.held).items())
