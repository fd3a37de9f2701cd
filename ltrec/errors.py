"""The one exception that stands for a user's mistake."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_SHOWN = 3


class UserError(Exception):
    """A mistake of the user: shown as one line without a traceback, exit code 2.

    The message says what is wrong, the value seen and what is allowed; `where` names
    the file, the parameter path or the option, such as `params.yaml: rebalance.crt.lr`.
    """

    def __init__(self, what: str, *, where: str | None = None) -> None:
        self.what = what
        self.where = where
        super().__init__(f"{where}: {what}" if where else what)


def one_line(error: Exception, longest: int = 300) -> str:
    """Return what another library says over many lines as one line, fit for a `UserError`."""
    text = " ".join(str(error).split())
    return text if len(text) <= longest else f"{text[:longest]} …"


def some(items: Sequence[object]) -> str:
    """Return the first few of many items, and how many more there are, as text."""
    more = len(items) - _SHOWN
    return ", ".join(map(str, items[:_SHOWN])) + (f" and {more:,} more" if more > 0 else "")
