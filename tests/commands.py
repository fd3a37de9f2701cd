"""The command line, run in this process: a tenth of a second in place of a Python's start."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
from typing import TYPE_CHECKING, NamedTuple
from unittest.mock import patch

from ltrec import cli, console

if TYPE_CHECKING:
    from pathlib import Path


class Done(NamedTuple):
    """What a command left: its exit code, and what it wrote to both streams."""

    returncode: int
    stdout: str
    stderr: str


def ltrec(*arguments: str, cwd: Path) -> Done:
    """Run `ltrec` with these arguments in a folder."""
    output, errors = io.StringIO(), io.StringIO()
    before = signal.getsignal(signal.SIGTERM)
    try:
        with (
            contextlib.chdir(cwd),
            patch.dict(os.environ),
            patch.object(sys, "argv", ["ltrec", *arguments]),
            patch.object(sys, "unraisablehook", sys.unraisablehook),
            contextlib.redirect_stdout(output),
            contextlib.redirect_stderr(errors),
        ):
            cli.main()
    except SystemExit as ended:
        code = ended.code or 0
    finally:
        signal.signal(signal.SIGTERM, before)
        console.set_verbosity(console.Verbosity.NORMAL)
    assert isinstance(code, int)
    return Done(code, output.getvalue(), errors.getvalue())
