"""Brings records to MLflow from a thread of its own, so that no stage waits for the import or the network."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from ltrec import console, project
from ltrec.tracking import store
from ltrec.tracking.records import Record

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ltrec.tracking.mirror import Mirror

_SEND_EVERY = 3.0
_SAMPLE_EVERY = 10.0
_REST = 30.0
# Importing MLflow and migrating a database take as long as they take.
_START = 120.0
_UNREACHABLE = "INTERNAL_ERROR"  # MLflow's code for it

# A process forked while a thread imports inherits locked modules that nobody will ever unlock: forks wait.
_importing = threading.RLock()
os.register_at_fork(before=_importing.acquire, after_in_parent=_importing.release, after_in_child=_importing.release)


@dataclass(frozen=True)
class _Job:
    """A record to send. Its last job ends with the record released; one that nobody has open is opened for it."""

    record: Record
    last: bool = False
    foreign: bool = False
    done: threading.Event = field(default_factory=threading.Event)


class Courier:
    """One for each store. After a failure it says so once, rests, and leaves the rest to a later stage."""

    _all: ClassVar[dict[str, Courier]] = {}

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._jobs: queue.Queue[_Job] = queue.Queue()
        self._mirror: Mirror | None = None
        self._complained = False
        self._stuck = False
        self._rest_until = -float("inf")
        self._answer_due = float("inf")
        self._tracking = project.state_dir() / "tracking"
        self._enqueue_pending()
        threading.Thread(target=self._work, name="ltrec-tracking", daemon=True).start()

    @classmethod
    def instance(cls, patience: float) -> Courier:
        """The store's courier; a new one begins with what earlier stages left."""
        where = f"{project.root()} {store.tracking_uri()}"
        if where not in cls._all:
            cls._all[where] = cls(patience)
        return cls._all[where]

    @contextlib.contextmanager
    def attending(self, record: Record, *, sample: bool) -> Iterator[None]:
        """Send what the record gains every few seconds; `sample`: watch the machine's load meanwhile."""
        over = threading.Event()
        thread = threading.Thread(
            target=self._attend, args=(record, over, sample), name="ltrec-tracking-pulse", daemon=True
        )
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(timeout=self._patience)  # a sampler that hangs must not hold the stage

    def deliver(self, record: Record) -> None:
        """Send all of a record and close it. Waits for a store that answers, not for one that does not."""
        self._wait(self._enqueue(_Job(record, last=True)))

    def deliver_pending(self) -> None:
        """Send what earlier stages left."""
        for job in self._enqueue_pending():
            self._wait(job)

    def expect(self, seconds: float | None = None) -> None:
        """The next answer is due in so many seconds, by default in those of the settings."""
        self._answer_due = time.monotonic() + (self._patience if seconds is None else seconds)

    def _enqueue(self, job: _Job) -> _Job:
        self._jobs.put(job)
        return job

    def _enqueue_pending(self) -> list[_Job]:
        return [self._enqueue(_Job(record, foreign=True)) for record in Record.pending(self._tracking)]

    def _wait(self, job: _Job) -> None:
        while not job.done.wait(0 if self._stuck else 0.1):
            if time.monotonic() > self._answer_due:
                self._stuck = True
                self._complain("no answer")
            if self._stuck:
                return

    def _attend(self, record: Record, over: threading.Event, sample: bool) -> None:
        due = time.monotonic() + _SEND_EVERY
        watch = None
        while not over.wait(_SEND_EVERY):
            if sample and time.monotonic() >= due:
                due = time.monotonic() + _SAMPLE_EVERY
                with contextlib.suppress(Exception):  # a collector's trouble is not the stage's
                    if watch is None:
                        with _importing:
                            from ltrec.tracking.load import Load

                            watch = Load()
                    record.sample(watch.now())
            if self._jobs.empty():
                self._enqueue(_Job(record))
        if watch is not None:
            with contextlib.suppress(Exception):
                record.sample(watch.now())

    def _work(self) -> None:
        with self._no_harm():  # at once, so that the import runs beside the stage's own
            self._connected()
        while True:
            job = self._jobs.get()
            self.expect()
            if time.monotonic() >= self._rest_until:
                self._send(job)
            if job.last:
                job.record.release()
            self._answer_due, self._stuck = float("inf"), False
            job.done.set()

    def _send(self, job: _Job) -> None:
        if job.foreign and not job.record.take():
            return
        with self._no_harm():
            self._connected().reflect(job.record, complete=job.last or job.foreign)
            self._complained = False
        if job.foreign:
            job.record.release()

    @contextlib.contextmanager
    def _no_harm(self) -> Iterator[None]:
        """Whatever MLflow raises must not reach the training."""
        try:
            yield
        except Exception as error:  # noqa: BLE001
            self._complain(_first_line(error))
            # What MLflow refuses it refuses again, but only that; what does not answer is left in peace.
            if getattr(error, "error_code", _UNREACHABLE) == _UNREACHABLE:
                self._rest_until = time.monotonic() + _REST

    def _connected(self) -> Mirror:
        if self._mirror is None:
            store.knock()
            self.expect(_START)
            store.prepare_environment()
            with _importing:
                from ltrec.tracking.mirror import Mirror

            self._mirror = Mirror.connect(self.expect)
        return self._mirror

    def _complain(self, reason: str) -> None:
        if not self._complained:
            self._complained = True
            console.warn(
                f"MLflow at {store.shown_uri()}: {reason}; what it lacks is kept in {self._tracking}"
                " and sent by the next stage or by `ltrec sync`"
            )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:200]
