"""Printing what ltrec says: lines, warnings, tables and progress, on a terminal or without one."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from enum import IntEnum
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType

# Messages go to stderr, so that stdout carries only what was asked for (tables, JSON, CSV).
_messages = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)
_output = Console(highlight=False, emoji=False)


class Verbosity(IntEnum):
    QUIET = 0
    NORMAL = 1
    VERBOSE = 2


_verbosity = Verbosity.NORMAL
_LINE_EVERY_SECONDS = 10.0


def set_verbosity(level: Verbosity) -> None:
    global _verbosity  # noqa: PLW0603 - one process, one voice
    _verbosity = level


def say(message: str) -> None:
    if _verbosity >= Verbosity.NORMAL:
        _messages.print(escape(message))


def detail(message: str) -> None:
    """Print a line, but only with `--verbose`."""
    if _verbosity >= Verbosity.VERBOSE:
        _messages.print(f"[dim]{escape(message)}[/dim]")


def warn(message: str) -> None:
    """Print a warning, with `--quiet` too."""
    _messages.print(f"[yellow]warning:[/yellow] {escape(message)}")


def error(message: str) -> None:
    _messages.print(f"[bold red]error:[/bold red] {escape(message)}")


def show(renderable: RenderableType) -> None:
    """Print a result to stdout."""
    _output.print(renderable)


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
            task = bar.add_task(escape(what), total=total, completed=done, note="")

            def advance_bar(n: int = 1, note: str = "") -> None:
                bar.update(task, advance=n, note=escape(note))

            yield advance_bar
    else:
        finished, last_line = done, time.monotonic()

        def advance_line(n: int = 1, note: str = "") -> None:
            nonlocal finished, last_line
            finished += n
            now = time.monotonic()
            if finished >= total or now - last_line >= _LINE_EVERY_SECONDS:
                last_line = now
                _messages.print(escape(f"{what}: {finished}/{total}{'  ' + note if note else ''}"))

        yield advance_line
