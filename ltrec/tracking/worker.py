"""The process that sends records to MLflow, so that no stage waits for MLflow's import or for the network."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from ltrec import project
from ltrec.errors import UserError
from ltrec.tracking import store
from ltrec.tracking.board import Board
from ltrec.tracking.masking import masked
from ltrec.tracking.records import Record
from ltrec.tracking.sending import QUIET

if TYPE_CHECKING:
    from collections.abc import Callable

    from ltrec.tracking.runs import Runs, SystemLoad

_START = 120.0  # seconds: importing MLflow takes as long as it takes
_SEND_EVERY, _SAMPLE_EVERY, _REST = 3.0, 10.0, 30.0
_LOOK_EVERY, _BEAT_EVERY = 0.05, 0.5
_DATABASE = 30.0  # seconds that a database may take, as no network is waited for and `knock` finds it locked
_GRACE = 20.0  # seconds that a store which does not answer has when nobody is left to hear of it
# MLflow's codes of what it would refuse again; after anything else it is left in peace, and the order is kept.
_REFUSALS = {
    "BAD_REQUEST", "INVALID_PARAMETER_VALUE", "INVALID_STATE", "PERMISSION_DENIED", "RESOURCE_ALREADY_EXISTS",
    "RESOURCE_CONFLICT", "RESOURCE_DOES_NOT_EXIST",
}  # fmt: skip


def main() -> None:
    """Begin here: send until the owner has ended and nothing is left to send."""
    # Signals to a session or a machine's jobs are the stage's: what it says last is to be sent.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    tracking, key, owner, patience = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
    folder = tracking / ".senders" / key
    with contextlib.suppress(UserError, OSError), project.lock(folder / "lock", patience=1.0):
        Worker(tracking, key, Board(folder), patience).work(owner)
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)  # not waiting for threads of MLflow's


class Worker:
    """Holds the connection to MLflow. When that does not answer, it is left in peace for a while.

    Args:
        tracking: The folder of all records.
        key: Whose records are sent while they are still written.
        board: Where stages ask and are answered.
        patience: Seconds within which the store is to answer.
    """

    def __init__(self, tracking: Path, key: str, board: Board, patience: float) -> None:
        self._tracking, self._key, self._board, self._patience = tracking, key, board, patience
        self._owner_gone = threading.Event()
        self._sent_sizes: dict[Path, int] = {}
        self._sample_due = 0.0
        self._trouble, self._rest_until, self._insisted = "", 0.0, 0.0
        self._refused: dict[Path, str] = {}

    def work(self, owner: int) -> None:
        threading.Thread(target=self._beat, args=(owner,), daemon=True).start()
        self._attempt(self._import)  # at once, so that it runs beside the stage's own imports
        while True:
            began, asked = time.monotonic(), self._board.get("asked")
            is_over = self._owner_gone.is_set() and not self._own_records()
            trouble = self.flush()
            if trouble or not self._board.get("quiet_until"):
                self._board.set_trouble(trouble or "")
            self._board.set("due", 0.0)
            self._board.set("answered", began)
            if is_over:
                return
            self._send_progress()
            self._board.set("due", 0.0)
            self._wait(asked)

    def flush(self) -> str | None:
        """Send every record that nobody writes, and return None or the first trouble."""
        if (insisted := self._board.get("insisted")) != self._insisted:
            self._insisted, self._rest_until = insisted, 0.0
            self._refused.clear()
        finished = Record.finished(self._tracking)
        if not finished:
            return None
        troubles = [self._attempt(lambda: store.knock(self._patience))]
        troubles += [self._send(record, complete=True) for record in finished]
        return next(filter(None, troubles), None)

    def _own_records(self) -> list[Record]:
        """Return the records that are still written and this sender's to send meanwhile."""
        pending = Record.pending(self._tracking)
        return [record for record in pending if record.about.sender == self._key and record.is_written()]

    def _send_progress(self) -> None:
        records = self._own_records()
        with contextlib.suppress(Exception):  # a collector's trouble is not the stage's
            if any(record.about.sample for record in records) and time.monotonic() >= self._sample_due:
                self._sample_due = time.monotonic() + _SAMPLE_EVERY
                load = self._load.now()
                for record in records:
                    if record.about.sample:
                        record.sample(load)
        sizes = {}
        for record in records:
            with contextlib.suppress(OSError):  # it may go meanwhile
                size = record.size()
                if size == self._sent_sizes.get(record.folder) or not self._send(record, complete=False):
                    sizes[record.folder] = size
                self._prepare_for(record)
        self._sent_sizes = sizes

    def _send(self, record: Record, *, complete: bool) -> str | None:
        """Return None or what went wrong. A complete record that MLflow refused is not sent again by this process."""
        if record.folder in self._refused:
            return self._refused[record.folder]
        self._expect()
        is_own = record.about.sender == self._key
        try:
            with record.sending(self._patience if complete and is_own else 0.0) as is_there:
                trouble = self._attempt(lambda: self._update(record, complete=complete)) if is_there else None
        except UserError as error:
            return str(error) if is_own else None  # another sender has it in hand
        if trouble and complete and time.monotonic() >= self._rest_until:
            self._refused[record.folder] = trouble
        return trouble

    def _prepare_for(self, record: Record) -> None:
        """Import what only a stage that exports needs, while it works."""
        if record.about.stage == "export" and time.monotonic() > self._rest_until:
            self._expect(_START)
            with contextlib.suppress(Exception):  # the sending meets it again
                from ltrec.tracking import models  # noqa: F401

    def _update(self, record: Record, *, complete: bool) -> None:
        self._runs.update(record, complete=complete)
        self._board.set("quiet_until", 0.0)

    def _attempt(self, action: Callable[[], None]) -> str | None:
        """Return None or, in a line, what went wrong. What MLflow refuses it refuses again, but only that."""
        if time.monotonic() < self._rest_until:
            return self._trouble
        self._expect()
        try:
            action()
        except Exception as error:  # noqa: BLE001 - whatever MLflow raises ends here
            self._trouble = masked(_in_a_line(error))[:1000]
            if getattr(error, "error_code", None) not in _REFUSALS:
                self._rest_until = time.monotonic() + _REST
                self._board.set_trouble(self._trouble)
                self._board.set("quiet_until", time.monotonic() + QUIET)
            return self._trouble
        return None

    def _import(self) -> None:
        """Import MLflow; nothing is made yet, since a stage may end before it has something to send."""
        store.knock(self._patience)
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
        if seconds is None:
            seconds = self._patience if store.is_server() else _DATABASE
        self._board.set("due", time.monotonic() + seconds)

    def _wait(self, asked: float) -> None:
        """Wait until somebody asks again, it is time for the next progress, or the owner has just ended."""
        end, was_gone = time.monotonic() + _SEND_EVERY, self._owner_gone.is_set()
        while time.monotonic() < end and self._board.get("asked") == asked and self._owner_gone.is_set() == was_gone:
            time.sleep(_LOOK_EVERY)

    def _beat(self, owner: int) -> None:
        """Show that this process lives, look after its owner, and end where only a mute store keeps it."""
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(owner)
            while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                self._board.set("beat", time.monotonic())
                time.sleep(_BEAT_EVERY)
        self._owner_gone.set()
        gone_since = time.monotonic()
        while True:
            now, due = time.monotonic(), self._board.get("due")
            self._board.set("beat", now)
            if due and now > max(gone_since + _GRACE, due) and not self._own_records():
                os._exit(1)
            time.sleep(_BEAT_EVERY)


def _in_a_line(error: Exception) -> str:
    """Return the line of an error that says what is wrong; SQLAlchemy may put one before it."""
    lines = [line for line in str(error).splitlines() if line.strip() and not line.startswith("(raised as a result of")]
    return lines[0].strip() if lines else type(error).__name__
