"""The process that brings records to MLflow: what it is told, what it answers, what it does."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING, NamedTuple

from ltrec import process, project
from ltrec.tracking import store
from ltrec.tracking.records import Record

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection
    from pathlib import Path

    from ltrec.tracking.load import Load
    from ltrec.tracking.mirror import Mirror

_SEND_EVERY = 3.0
_SAMPLE_EVERY = 10.0
_REST = 30.0
_START = 120.0
_UNREACHABLE = "INTERNAL_ERROR"  # MLflow's code for it


class Attend(NamedTuple):
    """Told: send what this record gains, until it is delivered."""

    folder: Path
    sample: bool
    """Add the machine's load to it now and then."""


class Deliver(NamedTuple):
    """Told: send all of this record, or, without a folder, of those that earlier stages left."""

    folder: Path | None


class Due(NamedTuple):
    """Answered: more will be heard in so many seconds, by default in those of the settings."""

    seconds: float | None


class Outcome(NamedTuple):
    """Answered: MLflow has it, or why not."""

    trouble: str | None


class Delivered(NamedTuple):
    """Answered: this is sent, or left for later."""

    folder: Path | None


def work(pipe: Connection, folder: Path) -> None:
    """Do what comes through the pipe until its other end is closed.

    Args:
        pipe: To the stage.
        folder: The stage's current one.
    """
    # Signals to the group are the stage's: it ends in order, and what it says last is to be sent.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    process.die_with_parent(signal.SIGKILL)
    os.chdir(folder)
    with contextlib.suppress(EOFError, OSError):
        Sender(pipe).work()


class Sender:
    """Holds the connection to MLflow. After a failure it rests."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._tracking = project.state_dir() / "tracking"
        self._attended: dict[Path, tuple[Record, bool]] = {}
        self._mirror: Mirror | None = None
        self._load: Load | None = None
        self._sample_due = 0.0
        self._rest_until = -float("inf")

    def work(self) -> None:
        with self._no_harm():  # at once, so that the import runs beside the stage's own
            self._import()
        self._send_pending()
        while True:
            if not self._pipe.poll(_SEND_EVERY if self._attended else None):
                self._send_news()
                continue
            match self._pipe.recv():
                case Attend(folder, sample):
                    with contextlib.suppress(OSError, ValueError):  # it is gone: nothing to send
                        self._attended[folder] = Record.at(folder), sample
                case Deliver(None):
                    self._send_pending()
                    self._pipe.send(Delivered(None))
                case Deliver(folder) if folder:
                    if attended := self._attended.pop(folder, None):
                        self._send_all(*attended)
                    self._pipe.send(Delivered(folder))

    def _send_news(self) -> None:
        sample_now = time.monotonic() >= self._sample_due
        for record, sample in self._attended.values():
            if sample and sample_now:
                self._sample(record)
            self._send(record, complete=False)

    def _send_all(self, record: Record, sample: bool) -> None:
        self._expect()
        if sample and self._load:
            self._sample(record)
        self._send(record, complete=True)

    def _sample(self, record: Record) -> None:
        self._sample_due = time.monotonic() + _SAMPLE_EVERY
        with contextlib.suppress(Exception):  # a collector's trouble is not the stage's
            if self._load is None:
                from ltrec.tracking.load import Load

                self._load = Load()
            record.sample(self._load.now())

    def _send_pending(self) -> None:
        for record in Record.pending(self._tracking):
            if record.take():
                self._send(record, complete=True)
                record.release()

    def _send(self, record: Record, *, complete: bool) -> None:
        if time.monotonic() >= self._rest_until:
            with self._no_harm():
                self._connected().reflect(record, complete=complete)

    @contextlib.contextmanager
    def _no_harm(self) -> Iterator[None]:
        """Whatever MLflow raises is told in a line, and ends there."""
        trouble = None
        try:
            self._expect()
            yield
        except Exception as error:  # noqa: BLE001
            trouble = _first_line(error)
            # What MLflow refuses it refuses again, but only that; what does not answer is left in peace.
            if getattr(error, "error_code", _UNREACHABLE) == _UNREACHABLE:
                self._rest_until = time.monotonic() + _REST
        self._pipe.send(Outcome(trouble))

    def _import(self) -> None:
        """MLflow and its store's code; nothing is made yet, since a stage may end before it has something to send."""
        store.knock()
        self._expect(_START)
        store.prepare_environment()
        from ltrec.tracking import mirror

        mirror.import_store()

    def _connected(self) -> Mirror:
        if self._mirror is None:
            self._import()
            from ltrec.tracking.mirror import Mirror

            self._mirror = Mirror.connect(self._expect)
        return self._mirror

    def _expect(self, seconds: float | None = None) -> None:
        self._pipe.send(Due(seconds))


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:200]
