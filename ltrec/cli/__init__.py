"""The `ltrec` command: what it is put together from, and how it ends.

Heavy imports happen inside the command that needs them, so that help and usage errors come at once.
"""

from __future__ import annotations

import contextlib
import errno
import sys
from typing import TYPE_CHECKING, NoReturn

import typer

from ltrec.cli import data, params, published
from ltrec.cli.commands import app
from ltrec.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

_USAGE, _INTERRUPTED = 2, 130
# A full, read-only or failing disk, or something else where a file or a folder should be.
_OF_THE_DISK = {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM,
    errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EIO, errno.ESTALE,
}  # fmt: skip
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]  # typer does not export its own base
_GLOBAL = frozenset({"--params", "--quiet", "-q", "--verbose", "-v", "--version"})

app.add_typer(data.app, name="data")
app.add_typer(published.checkpoint_app, name="checkpoint")
app.add_typer(published.features_app, name="features")
app.add_typer(params.app, name="params")


def main() -> NoReturn:
    """Run the command line and exit: 0, 2 for a user's mistake, 130 for Ctrl-C, 143 for SIGTERM."""
    from ltrec import console, process

    closed = process.occupy_closed_streams()
    process.share_cores()
    process.end_in_order_on_sigterm()
    process.repeat_dropped_interrupts()
    if process.in_pipeline():
        process.die_with_parent()
    try:
        code = typer.main.get_command(app).main(prog_name="ltrec", standalone_mode=False)
        sys.stdout.flush()
    except _UsageError as error:
        _explain(error)
        code = _USAGE
    except UserError as error:
        for line in error.lines:
            console.error(line)
        code = _USAGE
    except KeyboardInterrupt:
        code = _INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has enough; what is still buffered must not fail at exit.
        console.drop_output(1)
        code = 1
    except OSError as error:
        if not (line := _line_of(error, closed)):
            raise
        console.error(line)
        console.drop_output(1)
        code = _USAGE
    if code == _INTERRUPTED:
        with contextlib.suppress(KeyboardInterrupt):
            console.warn("interrupted")
    raise SystemExit(code)


def _line_of(error: OSError, closed: Sequence[str]) -> str:
    """Return what to say of a disk that fails or a standard stream that is closed; of anything else nothing."""
    if closed and error.errno == errno.EBADF:
        return f"{' and '.join(closed)} is closed, but this command reads or writes there"
    if error.errno in _OF_THE_DISK:
        return ": ".join(str(part) for part in (error.filename, error.strerror) if part)
    return ""


def _explain(error: Exception) -> None:
    """Say what is wrong with the usage in one line; a command that lacks a subcommand shows its help."""
    from ltrec import console

    message = error.format_message()  # type: ignore[attr-defined]
    if message.startswith("Usage: "):
        typer.echo(message, err=True)
        return
    message = " ".join(message.split()).replace("Value error, ", "").rstrip(".")
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "ltrec"
    option = getattr(error, "option_name", None)
    if option in _GLOBAL and command != "ltrec":
        console.error(f"{option} stands before the command: `ltrec {option} {command.removeprefix('ltrec ')}`.")
    else:
        console.error(f"{message}; see `{command} --help`.")
