"""The one exception that stands for a user's mistake, and text of others cut down to what one line can hold."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_LONGEST_ITEM = 200
_PYDANTICS_ADVICE = re.compile(r"\s*For further information visit \S+")


class UserError(Exception):
    """A mistake of the user: shown as one line without a traceback, exit code 2.

    The message says what is wrong, the value seen and what is allowed; `where` names
    the file, the parameter path or the option, such as `params.yaml: rebalance.crt.lr`.

    Attributes:
        lines: What is shown, a line for each mistake: one, unless the error was made by `of_lines`. A line break
            inside of an entry is part of a name or a value, and does not begin a new line.
    """

    def __init__(self, what: str, *, where: str | None = None) -> None:
        self.what = what
        self.where = where
        text = f"{where}: {what}" if where else what
        self.lines: tuple[str, ...] = (text,)
        super().__init__(text)

    @classmethod
    def of_lines(cls, lines: Sequence[str]) -> UserError:
        """Return one error for several mistakes, each with its line."""
        error = cls("\n".join(lines))
        error.lines = tuple(lines)
        return error


def one_line(error: Exception, longest: int = 300) -> str:
    """Return what another library says over many lines as one line, fit for a `UserError`.

    Pydantic's links to its own documentation are left out.
    """
    text = " ".join(_PYDANTICS_ADVICE.sub("", str(error)).split())
    return shortened(text, longest)


def some(items: Sequence[object], shown: int = 3) -> str:
    """Return the first few of many items, and how many more there are, as text."""
    more = len(items) - shown
    listed = ", ".join(shortened(str(item), _LONGEST_ITEM) for item in items[:shown])
    return listed + (f" and {more:,} more" if more > 0 else "")


def shortened(text: str, longest: int) -> str:
    """Return as much of a text as a message repeats: at most `longest` characters, with a mark where it goes on."""
    return text if len(text) <= longest else f"{text[:longest]} …"
