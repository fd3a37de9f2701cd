"""Sends records to MLflow in a process of its own, so that no stage waits for MLflow's import or for the network.

An executor would not do: at the interpreter's exit `concurrent.futures` waits for a worker that hangs, and
`multiprocessing.Pool` starts a killed one anew. This process is killed at exit and dies with its parent.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import math
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltrec import console, process, project
from ltrec.tracking import store
from ltrec.tracking.records import Record

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

    from ltrec.tracking.runs import Runs, SystemLoad

_START = 120.0  # seconds: importing MLflow takes as long as it takes
_SEND_EVERY, _SAMPLE_EVERY, _REST = 3.0, 10.0, 30.0
_UNREACHABLE = "INTERNAL_ERROR"  # MLflow's code for it


def records_folder() -> Path:
    return project.state_dir() / "tracking"


def sender(patience: float) -> Sender:
    """Return the current store's sender; a new one begins with what earlier stages left."""
    return _sender(patience, project.root(), store.tracking_uri())


@functools.cache
def _sender(patience: float, _root: Path, _uri: str) -> Sender:
    return Sender(patience)


class Sender:
    """A stage's hold on the process that sends."""

    def __init__(self, patience: float) -> None:
        context = multiprocessing.get_context("spawn")
        # When the store's next answer is due, by the machine's monotonic clock: the worker writes, the stage reads.
        self._due: Any = context.RawValue("d", time.monotonic() + _START)
        self._pipe, theirs = context.Pipe()
        arguments = (theirs, self._due, patience, Path.cwd())
        worker = context.Process(target=_work, args=arguments, name="ltrec-tracking", daemon=True)
        with contextlib.suppress(OSError):  # no memory, no process: `_flush` finds nobody there
            worker.start()
            atexit.register(worker.kill)  # a gentler signal it ignores
        theirs.close()
        self._asked = 0
        self._complained = False

    def watch(self, record: Record, *, sample: bool) -> None:
        """Send what the record gains every few seconds; `sample`: add the machine's load to it meanwhile."""
        with contextlib.suppress(OSError):  # it has ended: `_flush` says so
            self._pipe.send((record.folder, sample))

    def deliver(self) -> None:
        """Send every record that nobody has open. Waits for a store that answers; trouble is said once."""
        trouble = self._flush()
        if trouble and not self._complained:
            console.warn(
                f"MLflow at {store.shown_uri()}: {trouble}; what it lacks is kept in {records_folder()}"
                " and sent by the next stage or by `ltrec sync`"
            )
        self._complained = bool(trouble)

    def _flush(self) -> str | None:
        """Return None once all is sent, else what went wrong."""
        self._asked += 1
        try:
            self._pipe.send(self._asked)
            while (left := self._due.value - time.monotonic()) > 0:
                if self._pipe.poll(min(left, 0.2)):
                    answered, trouble = self._pipe.recv()
                    if answered == self._asked:
                        return str(trouble) if trouble else None
        except (EOFError, OSError):
            return "the process that sends has ended"
        return "no answer"


def _work(pipe: Connection, due: Any, patience: float, folder: Path) -> None:
    """Do what comes through the pipe until its other end is closed; the process begins here."""
    # Signals to the group are the stage's: it ends in order, and what it says last is to be sent.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    process.die_with_parent(signal.SIGKILL)
    os.chdir(folder)
    with contextlib.suppress(EOFError, OSError):
        Worker(due, patience).work(pipe)


class Worker:
    """Holds the connection to MLflow. When that does not answer, it is left in peace for a while."""

    def __init__(self, due: Any, patience: float) -> None:
        self._due, self._patience = due, patience
        self._watched: tuple[Record, bool] | None = None
        self._sent_size, self._sample_due = -1, 0.0
        self._trouble, self._rest_until = "", 0.0

    def work(self, pipe: Connection) -> None:
        with contextlib.suppress(Exception):  # `flush` meets it again
            self._import()  # at once, so that it runs beside the stage's own imports
        self.flush()
        while True:
            self._due.value = math.inf  # nobody is asked for anything
            if not pipe.poll(_SEND_EVERY if self._watched else None):
                self._send_progress()
                continue
            match pipe.recv():
                case int(asked):
                    self._watched = None
                    pipe.send((asked, self.flush()))
                case folder, sample:
                    with contextlib.suppress(OSError, ValueError, TypeError):  # it is gone: nothing to send
                        self._watched, self._sent_size = (Record.at(folder), sample), -1

    def flush(self) -> str | None:
        """Send every record that nobody has open, and return None or the first trouble."""
        troubles = []
        for record in filter(Record.take, Record.pending(records_folder())):
            troubles.append(self._update(record, complete=True))
            record.release()
        return next(filter(None, troubles), None)

    def _send_progress(self) -> None:
        assert self._watched
        record, sample = self._watched
        with contextlib.suppress(Exception):  # a collector's trouble is not the stage's, and a record may go
            if sample and time.monotonic() >= self._sample_due:
                self._sample_due = time.monotonic() + _SAMPLE_EVERY
                record.sample(self._load.now())
            size = record.size()
            if size != self._sent_size and not self._update(record, complete=False):
                self._sent_size = size

    def _update(self, record: Record, *, complete: bool) -> str | None:
        return self._attempt(lambda runs: runs.update(record, complete=complete))

    def _attempt(self, send: Callable[[Runs], None]) -> str | None:
        """Return None or, in a line, what went wrong. What MLflow refuses it refuses again, but only that."""
        if time.monotonic() < self._rest_until:
            return self._trouble
        self._expect()
        try:
            send(self._runs)
        except Exception as error:  # noqa: BLE001 - whatever MLflow raises ends here
            self._trouble = next(iter(str(error).strip().splitlines()), type(error).__name__)[:1000]
            if getattr(error, "error_code", _UNREACHABLE) == _UNREACHABLE:
                self._rest_until = time.monotonic() + _REST
            return self._trouble
        return None

    def _import(self) -> None:
        """Import MLflow; nothing is made yet, since a stage may end before it has something to send."""
        store.knock()
        self._expect(_START)
        store.prepare_environment()
        from ltrec.tracking.runs import import_store

        import_store()

    @functools.cached_property
    def _runs(self) -> Runs:
        self._import()
        from ltrec.tracking.runs import Runs

        return Runs(self._expect)

    @functools.cached_property
    def _load(self) -> SystemLoad:
        from ltrec.tracking.runs import SystemLoad

        return SystemLoad()

    def _expect(self, seconds: float | None = None) -> None:
        self._due.value = time.monotonic() + (self._patience if seconds is None else seconds)
