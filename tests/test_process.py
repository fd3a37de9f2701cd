"""Signals and orphans, with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

# Says when it is ready, and in `finally` that it ended in order.
STAGE = """
import pathlib, sys, time
from ltrec import process
{start}
try:
    pathlib.Path(sys.argv[1], "ready").touch()
    time.sleep(60)
finally:
    pathlib.Path(sys.argv[1], "ended").touch()
"""
PARENT = """
import subprocess, sys
print(subprocess.Popen([sys.executable, "-c", sys.argv[2], sys.argv[1]]).pid, flush=True)
sys.stdin.read()
"""
# Is in a callback when the signal comes: Python drops what is raised there, and goes on.
DEAF = """
import pathlib, sys, time, weakref
from ltrec import process
process.end_in_order_on_sigterm(grace=1)
class Thing:
    pass
def last_words(_reference):
    pathlib.Path(sys.argv[1], "ready").touch()
    time.sleep(60)
thing = Thing()
reference = weakref.ref(thing, last_words)
del thing
pathlib.Path(sys.argv[1], "went on").touch()
time.sleep(60)
"""
# As above, until it is asked once more.
TAUGHT = DEAF.replace("grace=1)", "grace=20)\nprocess.repeat_dropped_interrupts()")
IN_ORDER = "process.end_in_order_on_sigterm()"


def appears(file: Path, seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while not file.exists() and time.monotonic() < end:
        time.sleep(0.01)
    return file.exists()


@pytest.mark.slow
def test_sigterm_ends_in_order(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", STAGE.format(start=IN_ORDER), str(tmp_path)]) as stage:
        assert appears(tmp_path / "ready")
        stage.terminate()
        assert stage.wait(20) == 128 + signal.SIGTERM
    assert (tmp_path / "ended").exists()


@pytest.mark.slow
def test_sigterm_ends_a_process_that_drops_the_exception(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", DEAF, str(tmp_path)], stderr=subprocess.PIPE, text=True) as stage:
        assert appears(tmp_path / "ready")
        stage.terminate()
        assert stage.wait(20) == -signal.SIGALRM
        assert (tmp_path / "went on").exists()
        assert stage.stderr is not None
        assert "Exception ignored" in stage.stderr.read()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_python_drops_is_raised_again(number: signal.Signals, tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", TAUGHT, str(tmp_path)], stderr=subprocess.PIPE, text=True) as stage:
        assert appears(tmp_path / "ready")
        stage.send_signal(number)
        assert stage.wait(10) == (128 + number if number == signal.SIGTERM else -number)
        assert stage.stderr is not None
        assert "Exception ignored" not in stage.stderr.read()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent died")
def test_no_orphan_trains_on(tmp_path: Path) -> None:
    stage = STAGE.format(start=f"{IN_ORDER}\nprocess.die_with_parent()")
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path), stage], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        try:
            assert appears(tmp_path / "ready")
            parent.kill()
            parent.wait(20)
            assert appears(tmp_path / "ended")
        finally:
            if not (tmp_path / "ended").exists():
                os.kill(child, signal.SIGKILL)
