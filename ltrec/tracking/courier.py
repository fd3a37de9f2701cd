"""Brings records to MLflow from a thread of its own, so that no stage waits for the import or the network."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from typing import TYPE_CHECKING, ClassVar, Self

from ltrec import console, project
from ltrec.tracking import store
from ltrec.tracking.records import Record

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ltrec.tracking.mirror import Mirror

_SEND_EVERY = 3.0
_SAMPLE_EVERY = 10.0
_REST = 30.0


class Courier:
    """One a process. After a failure it rests, says so once, and leaves the rest to a later stage."""

    _one: ClassVar[Courier | None] = None

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._jobs: queue.Queue[tuple[Record, threading.Event | None]] = queue.Queue()
        self._mirror: Mirror | None = None
        self._complained = False
        self._rest_until = -float("inf")
        # MLflow's own defaults block a call to a dead server for four minutes.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        for waiting in Record.pending(project.state_dir() / "tracking"):
            self._jobs.put((waiting, None))
        threading.Thread(target=self._work, name="ltrec-tracking", daemon=True).start()

    @classmethod
    def instance(cls, patience: float) -> Self:
        if not isinstance(cls._one, cls):
            cls._one = cls(patience)
        return cls._one

    @contextlib.contextmanager
    def attending(self, record: Record, *, sample: bool) -> Iterator[None]:
        """Send what the record gains every few seconds, with a sample of the machine's load."""
        done = threading.Event()

        def attend() -> None:
            sampler = None
            while not done.wait(_SEND_EVERY):
                if sample and sampler is None:
                    from ltrec.tracking.load import Load

                    sampler = Load(record)
                if sampler:
                    sampler.sample(at_least_every=_SAMPLE_EVERY)
                self._jobs.put((record, None))
            if sampler:
                sampler.sample(at_least_every=0)

        thread = threading.Thread(target=attend, name="ltrec-tracking-pulse", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def deliver(self, record: Record) -> None:
        """Send all of a record and wait for it, but not for ever."""
        delivered = threading.Event()
        self._jobs.put((record, delivered))
        if not delivered.wait(self._patience):
            self._complain(record, "it takes too long")

    def _work(self) -> None:
        while True:
            record, delivered = self._jobs.get()
            if time.monotonic() >= self._rest_until:
                self._send(record)
            if delivered:
                delivered.set()

    def _send(self, record: Record) -> None:
        if not record.exists():  # an earlier request brought all of it
            return
        try:
            if self._mirror is None:
                from ltrec.tracking.mirror import Mirror

                self._mirror = Mirror.connect()
            self._mirror.reflect(record)
        except Exception as error:  # noqa: BLE001 - whatever MLflow raises must not reach the training
            self._rest_until = time.monotonic() + _REST
            self._complain(record, _first_line(error))
        else:
            self._complained = False

    def _complain(self, record: Record, reason: str) -> None:
        if not self._complained:
            self._complained = True
            console.warn(
                f"MLflow at {store.tracking_uri()}: {reason}; the run is kept in {record.folder}"
                " and sent by the next stage or by `ltrec sync`"
            )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:200]
