"""Small tables beside the main one, for Markdown and in plain ASCII for every terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, names: int = 1) -> str:
    """Return a table as GitHub shows it; its first columns, as many as `names`, are no numbers."""
    lines = [columns, ["---"] * names + ["---:"] * (len(columns) - names), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def terminal_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, bold: str, names: int = 1) -> Table:
    """Return a table that fits into 80 columns, with the rows of the variant `bold` in bold; likewise."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for place, title in enumerate(columns):
        overflow: Literal["ellipsis", "fold"] = "ellipsis" if place else "fold"
        table.add_column(title, justify="left" if place < names else "right", no_wrap=place > 0, overflow=overflow)
    for row in rows:
        table.add_row(*row, style="bold" if row[0] == bold else "")
    return table
