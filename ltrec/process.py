"""The process of a stage: how it shares the cores, and how it ends with whoever started it or on a signal."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

STARTED_BY_RUN = "LTREC_RUN"
"""The environment variable by which `ltrec run` tells a stage who started it."""
_PR_SET_PDEATHSIG = 1


def share_cores() -> None:
    """Keep OpenMP's threads from spinning for long while they wait; to be called before torch is loaded.

    By default GNU's spin so long that trainings side by side slow each other down; if they slept at once, a training
    alone would take half as long again. So they spin briefly (benchmarks/threads.py).
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def occupy_closed_streams() -> list[str]:
    """Open what is neither readable nor writable in place of standard streams that are closed, and return their names.

    Else the next file that is opened would take their number, and messages of libraries would be written into it.
    Messages to a closed stderr vanish; whoever reads stdin or writes to stdout gets an OSError of EBADF.
    """
    closed = []
    for number, name, flags in ((0, "stdin", os.O_WRONLY), (1, "stdout", os.O_RDONLY), (2, "stderr", os.O_WRONLY)):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, flags)
            os.dup2(opened, number)
            os.set_inheritable(number, True)
            if opened != number:
                os.close(opened)
            mode = "w" if number else "r"
            setattr(sys, name, open(number, mode, closefd=False, encoding="utf-8"))  # noqa: SIM115 - a stream
            closed.append(name)
    return closed


def cores() -> int:
    """Return how many of the machine's cores this process may use, as its affinity and its container allow."""
    import joblib

    return int(joblib.cpu_count())


def in_pipeline() -> bool:
    """Return whether DVC or `ltrec run` started this process, as one stage of several."""
    return "DVC_STAGE" in os.environ or STARTED_BY_RUN in os.environ


def die_with_parent(signum: int = signal.SIGTERM) -> None:
    """Ask Linux for a signal when the parent dies, so that a killed `dvc` leaves no training behind.

    The parent must be `dvc` itself, not a shell that it started: hence the `exec` in dvc.yaml.
    """
    if not sys.platform.startswith("linux"):
        return
    parent = os.getppid()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signum, 0, 0, 0)
    if os.getppid() != parent:  # the parent died in between
        os.kill(os.getpid(), signum)


def end_in_order_on_sigterm(grace: int = 30) -> None:
    """Turn SIGTERM into SystemExit(143), so that `finally` blocks run; after `grace` seconds the process is killed.

    It is, because Python drops an exception that comes while it runs a destructor or a weak reference's callback, and
    the training would go on.
    """

    def leave(signum: int, _frame: FrameType | None) -> None:
        signal.signal(signum, signal.SIG_IGN)
        signal.alarm(grace)
        raise SystemExit(128 + signum)

    signal.signal(signal.SIGTERM, leave)


def repeat_dropped_interrupts(pause: float = 0.05, grace: int = 30) -> None:
    """Raise what Ctrl-C and SIGTERM raise once more where Python drops it; after `grace` seconds the process is killed.

    Python does in destructors, in callbacks of weak references and around a fork: it shows a traceback and goes on as
    if nobody had asked it to end.
    """
    show = sys.unraisablehook

    def repeat(dropped: sys.UnraisableHookArgs) -> None:
        error = dropped.exc_value
        if (
            not isinstance(error, KeyboardInterrupt | SystemExit)
            or threading.current_thread() is not threading.main_thread()
        ):
            show(dropped)
            return
        again = type(error)(*error.args)

        def ask_again(_signum: int, _frame: FrameType | None) -> None:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(grace)
            raise again

        signal.signal(signal.SIGALRM, ask_again)
        signal.setitimer(signal.ITIMER_REAL, pause)  # by then Python has left the callback

    sys.unraisablehook = repeat
