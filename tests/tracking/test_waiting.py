"""How long a stage waits, with a sender that does what each test says and runs in no process of its own."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING

import pytest

from ltrec import project, tracking
from ltrec.tracking import sending
from ltrec.tracking.board import Board
from ltrec.tracking.records import About, Record
from ltrec.tracking.sending import Sender
from ltrec.tracking.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.tracking.conftest import Project

ABOUT = About("represent", None, nested=True, pipeline="pipeline", experiment="ltrec", model="ltrec")
PATIENCE = 0.3


class NoProcess:
    """Stands where a started process stands, and has ended at once."""

    started = 0

    def __init__(self, *_: object, **__: object) -> None:
        NoProcess.started += 1

    def poll(self) -> int:
        return 0


@pytest.fixture
def sender(empty_project: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sender]:
    monkeypatch.setattr(sending.subprocess, "Popen", NoProcess)
    monkeypatch.setattr(sending, "_SIGN_OF_LIFE", PATIENCE)
    monkeypatch.setattr(NoProcess, "started", 0)
    Record.start(empty_project.folder / ".ltrec/tracking/state", ABOUT).release()
    return Sender(PATIENCE)


@pytest.fixture
def board(sender: Sender) -> Board:
    return Board(sender._folder)


@pytest.fixture
def alive(sender: Sender) -> Iterator[None]:
    """What tells that a sender lives."""
    with project.lock(sender._folder / "lock"):
        yield


@contextlib.contextmanager
def beating(board: Board, then: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Show signs of life, and do something each time."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(0.02):
            board.set("beat", time.monotonic())
            then()

    thread = threading.Thread(target=beat)
    thread.start()
    yield
    over.set()
    thread.join()


def timed(sender: Sender, *, insist: bool = False) -> float:
    start = time.monotonic()
    sender.deliver(insist=insist)
    return time.monotonic() - start


@pytest.mark.usefixtures("alive")
def test_an_answer_is_waited_for_no_longer_than_it_takes(
    sender: Sender, board: Board, capsys: pytest.CaptureFixture[str]
) -> None:
    with beating(board, lambda: board.set("answered", time.monotonic())):
        assert timed(sender) < PATIENCE
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("alive")
def test_trouble_is_said_and_without_waiting_again(
    sender: Sender, board: Board, capsys: pytest.CaptureFixture[str]
) -> None:
    board.set_trouble("it is refused")
    with beating(board, lambda: board.set("answered", time.monotonic())):
        sender.deliver()
        sender.deliver()
    said = capsys.readouterr().err
    assert said.count("warning") == 1
    assert "it is refused; what it lacks is kept in " in said


@pytest.mark.usefixtures("alive")
@pytest.mark.parametrize("beats", [True, False])
def test_no_answer_is_waited_for_once(
    beats: bool, sender: Sender, board: Board, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a server that says nothing, and of a sender that is stopped."""
    board.set("beat", time.monotonic())
    with beating(board) if beats else contextlib.nullcontext():
        assert PATIENCE <= timed(sender) < PATIENCE + 1
        expected = f"no answer within {PATIENCE} s" if beats else "the process that sends does not react"
        assert expected in capsys.readouterr().err
        assert timed(sender) < PATIENCE
        # Another stage, in a process of its own.
        assert timed(Sender(PATIENCE)) < PATIENCE
        assert expected in capsys.readouterr().err
        assert timed(sender, insist=True) >= PATIENCE
    assert NoProcess.started == 1


@pytest.mark.usefixtures("alive")
def test_what_the_sender_expects_to_take_long_is_waited_for(sender: Sender, board: Board) -> None:
    board.set("due", time.monotonic() + 3 * PATIENCE)
    with beating(board):
        assert timed(sender) >= 3 * PATIENCE


@pytest.mark.usefixtures("alive")
def test_a_stopped_sender_is_not_waited_for_although_much_is_due(sender: Sender, board: Board) -> None:
    board.set("beat", time.monotonic())
    board.set("due", time.monotonic() + 100)
    assert timed(sender) < 2 * PATIENCE + 1


def test_a_sender_that_cannot_live_costs_a_line_and_no_time(sender: Sender, capsys: pytest.CaptureFixture[str]) -> None:
    assert timed(sender) < PATIENCE
    assert "the process that sends has ended" in capsys.readouterr().err
    assert NoProcess.started == 3  # at the beginning, and twice when it was wanted


def test_where_nothing_is_left_to_send_nobody_is_missed(
    sender: Sender, empty_project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    (record,) = Record.pending(empty_project.folder / ".ltrec/tracking")
    record.remove()
    sender.deliver()
    assert capsys.readouterr().err == ""


def test_stages_that_differ_in_what_mlflow_reads_have_senders_of_their_own(
    sender: Sender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Sender(PATIENCE).key == sender.key
    monkeypatch.setenv("DVC_STAGE", "represent")
    assert Sender(PATIENCE).key == sender.key
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "another")
    other = Sender(PATIENCE).key
    assert other != sender.key
    monkeypatch.chdir(tmp_path)  # a store's address may be relative
    assert Sender(PATIENCE).key not in {other, sender.key}


def test_the_sender_says_what_is_wrong_without_secrets(
    empty_project: Project, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:hunter2@127.0.0.1:1?token=abcdef")

    def fail(_patience: float) -> None:
        raise OSError("cannot open http://me:hunter2@127.0.0.1:1?token=abcdef (hunter2)\nsecond line")

    monkeypatch.setattr("ltrec.tracking.store.knock", fail)
    worker = Worker(empty_project.folder / ".ltrec/tracking", "key", board, PATIENCE)
    assert worker.flush() == "cannot open http://***@127.0.0.1:1?*** (***)"
    for file in (empty_project.folder / ".ltrec").rglob("*"):
        assert not file.is_file() or b"hunter2" not in file.read_bytes()
    assert board.trouble().startswith("cannot open")
    assert board.get("quiet_until") > time.monotonic()


def test_of_a_long_error_the_line_that_tells(
    empty_project: Project, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_patience: float) -> None:
        raise OSError(
            "(raised as a result of Query-invoked autoflush; …)\n(sqlite3.OperationalError) database or disk is full\n"
            "[SQL: …]"
        )

    monkeypatch.setattr("ltrec.tracking.store.knock", fail)
    worker = Worker(empty_project.folder / ".ltrec/tracking", "key", board, PATIENCE)
    assert worker.flush() == "(sqlite3.OperationalError) database or disk is full"


@pytest.mark.usefixtures("sender")
def test_sync_says_how_many_runs_are_kept(empty_project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    state = empty_project.folder / ".ltrec/tracking/state"
    Record.start(state, ABOUT).release()  # more of the same run
    tracking.sync()
    assert capsys.readouterr().err.endswith("sync: 0 of 1 run(s) sent, 1 kept\n")
