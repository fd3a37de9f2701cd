"""Printing what ltrec says: lines, warnings, tables and progress, on a terminal or without one.

Names of files and classes come from others. What a terminal would take for a command, or a reader for another line, is
spelt out here, for every message and table.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from collections.abc import Callable
from enum import IntEnum
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.segment import Segment

from ltrec.errors import some

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rich.console import ConsoleOptions, RenderableType

# Control characters, signs that change the direction of writing, ends of lines in Unicode, and halves of characters.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_LONGEST_NAMES = 1000  # characters of all names in a message
_LONGEST_LINE = 4000  # characters of a message without --verbose


def printable(text: str) -> str:
    """Return a text as one line that leaves a terminal as it is: control characters and their like are spelt out."""
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


class _SafeConsole(Console):
    """A console whose tables cannot steer the terminal; messages that nobody reads any more are dropped."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield Segment("\n".join(map(printable, segment.text.split("\n"))), segment.style)

    def on_broken_pipe(self) -> None:
        if self.stderr:
            self.fall_silent()
        else:
            super().on_broken_pipe()

    def fall_silent(self) -> None:
        """Drop what could not be written, and whatever comes."""
        del self._buffer[:]
        drop_output(2)


# Messages go to stderr, so that stdout carries only what was asked for (tables, JSON, CSV).
_messages = _SafeConsole(stderr=True, highlight=False, soft_wrap=True, emoji=False)
_output = _SafeConsole(highlight=False, emoji=False)


class Verbosity(IntEnum):
    QUIET = 0
    NORMAL = 1
    VERBOSE = 2


_verbosity = Verbosity.NORMAL
_LINE_EVERY_SECONDS = 10.0


def set_verbosity(level: Verbosity) -> None:
    global _verbosity  # noqa: PLW0603 - one process, one voice
    _verbosity = level


def verbosity_options() -> list[str]:
    """Return the options of `ltrec` that make another process as talkative as this one."""
    return {Verbosity.QUIET: ["--quiet"], Verbosity.VERBOSE: ["--verbose"]}.get(_verbosity, [])


def drop_output(number: int) -> None:
    """Let what is written to a standard stream, 1 or 2, vanish from now on: its reader is gone, or its disk full."""
    stream = sys.stdout if number == 1 else sys.stderr
    # Where a test or a notebook stands in for the stream, there is no such file.
    with contextlib.suppress(OSError, ValueError, AttributeError):
        number = stream.fileno()
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, number)
        os.close(null)


def say(message: str) -> None:
    if _verbosity >= Verbosity.NORMAL:
        _print(message)


def detail(message: str) -> None:
    """Print a line, but only with `--verbose`."""
    if _verbosity >= Verbosity.VERBOSE:
        _print(message, around="[dim]{}[/dim]")


def warn(message: str) -> None:
    """Print a warning, with `--quiet` too."""
    _print(message, around="[yellow]warning:[/yellow] {}")


def error(message: str) -> None:
    _print(message, around="[bold red]error:[/bold red] {}")


def first_five(items: Sequence[object], what: str) -> str:
    """Return names for a message: all, or, where they are too long for that, the first five; `--verbose` prints all.

    They may be a hundred thousand. `what` says of which file they are, and what is the matter with them.
    """
    every = ", ".join(map(str, items))
    if len(every) <= _LONGEST_NAMES:
        return every
    detail(f"{what}: {every}")
    return f"{some(items, 5)} (--verbose lists them)"


def show(renderable: RenderableType) -> None:
    """Print a result to stdout; names in the cells of a table are made `printable` before, so that they fit there."""
    _output.print(renderable)


def _print(message: str, around: str = "{}") -> None:
    """Print one line, whatever is in the message; it is not worth the work of a stage if nobody can read it."""
    line = printable(message)
    if len(line) > _LONGEST_LINE and _verbosity < Verbosity.VERBOSE:
        line = f"{line[:_LONGEST_LINE]} … ({len(line) - _LONGEST_LINE:,} more characters with --verbose)"
    try:
        _messages.print(around.format(escape(line)))
    except OSError:
        _messages.fall_silent()


Advance = Callable[..., None]
"""`advance(n=1, note="")` says that n more steps are done; `note` stands behind the bar."""


@contextlib.contextmanager
def progress(what: str, total: int, *, done: int = 0) -> Iterator[Advance]:
    """Yield what advances a progress bar; without a terminal there is a plain line now and then.

    `what` is under way, such as `represent: epochs`; an earlier run finished `done` of the `total` steps.
    """
    if _verbosity == Verbosity.QUIET:
        yield lambda _n=1, _note="", **_named: None
    elif _messages.is_terminal:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=_messages) as bar:
            task = bar.add_task(escape(printable(what)), total=total, completed=done, note="")

            def advance_bar(n: int = 1, note: str = "") -> None:
                bar.update(task, advance=n, note=escape(printable(note)))

            yield advance_bar
    else:
        finished, last_line = done, time.monotonic()

        def advance_line(n: int = 1, note: str = "") -> None:
            nonlocal finished, last_line
            finished += n
            now = time.monotonic()
            if finished >= total or now - last_line >= _LINE_EVERY_SECONDS:
                last_line = now
                _print(f"{what}: {finished}/{total}{'  ' + note if note else ''}")

        yield advance_line
