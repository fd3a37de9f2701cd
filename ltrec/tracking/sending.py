"""A stage's side of the sending: finds or starts the process that sends, asks it, and waits within limits.

That process outlives the stage: it serves all stages of a `dvc repro` or `ltrec run`, so that MLflow is imported once,
and ends with that; started by a stage alone it ends with the stage. It is in no process group of theirs: their signals
are not for it, since what they say last is to be sent.
"""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

from ltrec import artifacts, console, process, project
from ltrec.errors import UserError
from ltrec.tracking import store
from ltrec.tracking.board import Board
from ltrec.tracking.records import Record

QUIET = 600.0
"""Seconds for which stages do not wait again for a store that did not answer."""
_SIGN_OF_LIFE = 3.0  # seconds within which a sender shows that it lives, six times over
_STOPPED = 30.0  # seconds without any, after which it is replaced
_LOOK_EVERY = 0.05
# Stages that differ in these have senders of their own.
_ENVIRONMENT = ("MLFLOW_", "AWS_", "AZURE_", "GOOGLE_", "DATABRICKS_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


def records_folder() -> Path:
    return project.state_dir() / "tracking"


def sender(patience: float) -> Sender:
    """Return the current store's sender; a new one begins with what earlier stages left."""
    return _sender(patience, project.root(), store.tracking_uri())


@functools.cache
def _sender(patience: float, _root: Path, _uri: str) -> Sender:
    return Sender(patience)


class Sender:
    """A stage's hold on the process that sends.

    Args:
        patience: Seconds to wait for the store's next answer.
    """

    def __init__(self, patience: float) -> None:
        self.key = _key()
        self._patience = patience
        self._folder = records_folder() / ".senders" / self.key
        self._process: subprocess.Popen[bytes] | None = None
        self._complained = False
        with contextlib.suppress(OSError):  # no disk, no memory, no process: `_flush` finds nobody there
            self._make_ready()

    def deliver(self, *, insist: bool = False) -> None:
        """Have every record sent that nobody writes. Waits for a store that answers; trouble is said once.

        Args:
            insist: Ask a store again that did not answer a moment ago.
        """
        try:
            trouble = self._flush(insist=insist)
        except OSError as error:
            trouble = os.strerror(error.errno or 0)
        if trouble and not self._complained:
            console.warn(
                f"MLflow at {store.shown_uri()}: {trouble}; what it lacks is kept in {records_folder()}"
                " and sent by the next stage or by `ltrec sync`"
            )
        self._complained = bool(trouble)

    def _flush(self, *, insist: bool, again: bool = False) -> str | None:
        """Return None once all is sent, else what went wrong."""
        self._make_ready()
        board, asked = Board(self._folder), time.monotonic()
        if insist:
            board.set("insisted", asked)
        board.set("asked", asked)
        if board.get("quiet_until") > asked and not insist:
            return board.trouble()
        while board.get("answered") < asked:
            if not self._lives():  # it was killed, or ended with another stage that had started it
                if not Record.finished(records_folder()):
                    return None
                if again:
                    return "the process that sends has ended"
                return self._flush(insist=insist, again=True)
            if trouble := self._overdue(board, asked):
                board.set_trouble(trouble)
                board.set("quiet_until", time.monotonic() + QUIET)
                return trouble
            time.sleep(_LOOK_EVERY)
        return board.trouble() or None

    def _overdue(self, board: Board, asked: float) -> str | None:
        """Return what is wrong where the sender or the store should have answered by now."""
        now = time.monotonic()
        beat, due = board.get("beat"), board.get("due")
        # Before its first beat Python starts, which takes long where much else runs.
        if now > (max(asked, beat) + _SIGN_OF_LIFE if beat else asked + _STOPPED):
            return "the process that sends does not react"
        if now > max(asked + self._patience, due):
            return f"no answer within {self._patience:g} s"
        return None

    def _make_ready(self) -> None:
        """Start the process that sends, unless it lives already."""
        board = Board(self._folder)
        if self._lives():
            if time.monotonic() < board.get("beat") + _STOPPED or not board.get("beat"):
                return
            self._kill()
        board.clear()
        board.set_trouble("")
        owner = os.getppid() if process.in_pipeline() else os.getpid()
        given = [str(part) for part in (records_folder(), self.key, owner, self._patience)]
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-P", "-c", "from ltrec.tracking.worker import main; main()", *given],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            # Whoever reads the stage's output must not wait for this process.
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip

    def _lives(self) -> bool:
        if self._process is not None and self._process.poll() is None:
            return True
        try:
            with project.lock(self._folder / "lock", patience=0):
                return False
        except UserError:
            return True

    def _kill(self) -> None:
        """Kill a sender that was stopped, and wait until it is gone."""
        import psutil

        with contextlib.suppress(psutil.Error, ValueError):
            sender = psutil.Process(int((self._folder / "lock").read_text(encoding="utf-8")))
            if self.key in sender.cmdline():  # a number may be another process's elsewhere
                sender.kill()
                sender.wait(_SIGN_OF_LIFE)


def _key() -> str:
    """Return what the stages that one sender may serve have in common."""
    environment = {name: value for name, value in os.environ.items() if name.upper().startswith(_ENVIRONMENT)}
    return artifacts.digest(platform.node(), str(Path.cwd()), store.tracking_uri(), environment)[:16]
