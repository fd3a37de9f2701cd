"""The files that `predict` is asked about: named, in folders, or in a list on standard input."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ltrec.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

STDIN = "-"

_BLOCK = 2**16
"""How much of a list is read at a time; no path is as long."""


def files(inputs: list[str], *, null: bool = False) -> Iterator[tuple[Path, bool]]:
    """Yield the files, each with whether it was named itself and not found in a folder.

    Args:
        inputs: Files, folders (taken with all below them, in order), or `-` for a list on standard input.
        null: Whether NUL bytes separate the paths of that list, as `find -print0` writes them, and not line ends.

    Raises:
        UserError: `null` is asked for without a list, or the list has no NUL bytes.
    """
    if null and STDIN not in inputs:
        raise UserError("-0 says how a list on standard input is separated; give - to read one", where="predict")
    for entry in inputs:
        listed = _between_nuls() if null else _lines()
        for path in map(Path, map(os.fsdecode, listed) if entry == STDIN else [entry]):
            if path.is_dir():
                yield from ((file, False) for file in _below(path))
            else:
                yield path, True


def _lines() -> Iterator[bytes]:
    return (line.rstrip(b"\r\n") for line in sys.stdin.buffer if line.strip())


def _between_nuls() -> Iterator[bytes]:
    rest, is_separated = b"", False
    while block := sys.stdin.buffer.read1(_BLOCK):  # type: ignore[union-attr]
        *whole, rest = (rest + block).split(b"\0")
        is_separated |= bool(whole)
        yield from filter(None, whole)
        if len(rest) > _BLOCK:
            break
    if len(rest) > _BLOCK or (b"\n" in rest and not is_separated):
        raise UserError("the list on standard input is not separated by NUL bytes; -0 expects it", where="predict")
    if rest:
        yield rest


def _below(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder, in order, without hidden ones."""
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        if entry.is_file():
            yield entry
        elif entry.is_dir() and not entry.is_symlink():  # a link could lead back up
            yield from _below(entry)
