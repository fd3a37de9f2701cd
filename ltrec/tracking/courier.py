"""Hands records to the process that sends them, so that no stage waits for MLflow's import or for the network."""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from ltrec import console, project
from ltrec.tracking import store
from ltrec.tracking.sender import Attend, Deliver, Delivered, Due, Outcome, work

if TYPE_CHECKING:
    from ltrec.tracking.records import Record

# Importing MLflow and migrating a database take as long as they take.
_START = 120.0


class Courier:
    """One for each store. After a failure it says so once, and leaves the rest to a later stage."""

    _all: ClassVar[dict[str, Courier]] = {}

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._waiting: dict[Path | None, Record | None] = {}
        """What is to be delivered: folder → record; under None what earlier stages left."""
        self._news = threading.Condition()
        self._complained = False
        self._answer_due = time.monotonic() + _START
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        sender = context.Process(target=work, args=(theirs, Path.cwd()), name="ltrec-tracking", daemon=True)
        with contextlib.suppress(OSError):  # no memory, no process: `_listen` finds nobody there
            sender.start()
            atexit.register(sender.kill)  # a gentler signal it ignores
        theirs.close()
        threading.Thread(target=self._listen, name="ltrec-tracking", daemon=True).start()

    @classmethod
    def instance(cls, patience: float) -> Courier:
        """The store's courier; a new one begins with what earlier stages left."""
        where = f"{project.root()} {store.tracking_uri()}"
        if where not in cls._all:
            cls._all[where] = cls(patience)
        return cls._all[where]

    def attend(self, record: Record, *, sample: bool) -> None:
        """Send what the record gains every few seconds; `sample`: watch the machine's load meanwhile."""
        self._tell(Attend(record.folder, sample))

    def deliver(self, record: Record) -> None:
        """Send all of a record and close it. Waits for a store that answers, not for one that does not."""
        self._deliver(record.folder, record)

    def deliver_pending(self) -> None:
        """Send what earlier stages left, and wait likewise."""
        self._deliver(None, None)

    def _deliver(self, folder: Path | None, record: Record | None) -> None:
        with self._news:
            self._waiting[folder] = record
        self._tell(Deliver(folder))
        with self._news:
            while folder in self._waiting:
                left = self._answer_due - time.monotonic()
                if left <= 0:
                    self._complain("no answer")
                    return
                self._news.wait(min(left, threading.TIMEOUT_MAX))  # infinite: nothing is due yet

    def _tell(self, errand: Attend | Deliver) -> None:
        try:
            self._pipe.send(errand)
        except OSError:
            self._sender_has_ended()

    def _listen(self) -> None:
        while True:
            try:
                news = self._pipe.recv()
            except (EOFError, OSError):
                self._sender_has_ended()
                return
            with self._news:
                self._hear(news)
                self._news.notify_all()

    def _hear(self, news: Due | Outcome | Delivered) -> None:
        match news:
            case Due(seconds):
                self._answer_due = time.monotonic() + (self._patience if seconds is None else seconds)
            case Outcome(trouble):
                self._answer_due = float("inf")
                if trouble:
                    self._complain(trouble)
                else:
                    self._complained = False
            case Delivered(folder):
                self._answer_due = float("inf")
                self._release(folder)

    def _sender_has_ended(self) -> None:
        with self._news:
            if self._waiting:
                self._complain("the process that sends has ended")
            for folder in list(self._waiting):
                self._release(folder)
            self._news.notify_all()

    def _release(self, folder: Path | None) -> None:
        if record := self._waiting.pop(folder):
            record.release()

    def _complain(self, reason: str) -> None:
        if not self._complained:
            self._complained = True
            console.warn(
                f"MLflow at {store.shown_uri()}: {reason}; what it lacks is kept in {project.state_dir() / 'tracking'}"
                " and sent by the next stage or by `ltrec sync`"
            )
