"""Files that stand beside the images and say what they show."""

from __future__ import annotations

from pathlib import Path

from ltrec import console
from ltrec.errors import UserError


def annotation_file(root: Path, name: str) -> Path:
    """Where a file of the source lies, given relative to its root.

    Raises:
        UserError: no such file.
    """
    if Path(name).is_absolute():
        console.warn(f"prepare: {name} is an absolute path: `dvc repro` does not see when that file changes")
    file = root / name
    if not file.is_file():
        raise UserError("no such file; its path is relative to the source's root", where=str(file))
    return file


def lines_of(file: Path) -> list[tuple[int, str]]:
    """Numbered lines, from 1, stripped; blank ones left out.

    Raises:
        UserError: not UTF-8 text, or it cannot be read.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"is not UTF-8 text ({error.reason} at byte {error.start})", where=str(file)) from None
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror})", where=str(file)) from None
    return [(number, line.strip()) for number, line in enumerate(lines, start=1) if line.strip()]
