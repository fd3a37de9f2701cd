"""The field's list format: `relative/path label` a line, and class names a line each."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ltrec.artifacts import UNKNOWN, present
from ltrec.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

# The path may hold blanks, so the last one divides it from the label.
_LINE = re.compile(r"(?P<path>.*\S.*)[ \t](?P<label>\S+)[ \t]*\r?")
# Nothing in it that needs a closer look, as in nearly all paths of a benchmark; `..` aside.
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./-]*")
_ABSOLUTE = re.compile(r"/|\\|[A-Za-z]:[\\/]")


@dataclass(frozen=True, eq=False)
class ImageList:
    """N images: where they lie and what they show."""

    paths: tuple[str, ...]
    """Relative to the source's root, with `/` on every system."""
    labels: NDArray[np.int64]
    """(N,), between 0 and C - 1; -1 for an image of no class of the task."""

    def __post_init__(self) -> None:
        assert self.labels.shape == (len(self.paths),)

    def __len__(self) -> int:
        return len(self.paths)

    def counts(self, classes: int) -> NDArray[np.int64]:
        """Images of each class, (C,); unknown ones are in none."""
        return np.bincount(self.labels[self.labels != UNKNOWN], minlength=classes).astype(np.int64)

    def known(self) -> ImageList:
        """The images of the task's classes."""
        return self.where(self.labels != UNKNOWN)

    def where(self, mask: NDArray[np.bool_]) -> ImageList:
        """The images where the mask, (N,), is true; their order stays."""
        return ImageList(tuple(self.paths[index] for index in np.flatnonzero(mask)), self.labels[mask])


def make_list(pairs: Sequence[tuple[str, int]]) -> ImageList:
    """From (path, label) pairs."""
    return ImageList(tuple(path for path, _ in pairs), np.array([label for _, label in pairs], dtype=np.int64))


def list_text(images: ImageList) -> str:
    """What `read_list` reads back."""
    return "".join(f"{path} {label}\n" for path, label in zip(images.paths, images.labels, strict=True))


def read_list(file: Path, classes: int, *, unknown: bool = False) -> ImageList:
    """Read a list; blank lines, CRLF and a byte-order mark do no harm.

    Args:
        file: The list.
        classes: C, the number of classes.
        unknown: Whether images may have the label -1: of no class of the task.

    Raises:
        UserError: no such file, no images in it, or a line without a label, with a label that is no
            whole number in 0 … C - 1, or with a path that is absolute or leaves the root.
    """
    pairs = []
    for number, line in enumerate(_lines(file), start=1):
        if line.strip():
            try:
                pairs.append(_parse(line, classes, unknown=unknown))
            except ValueError as error:
                raise UserError(str(error), where=f"{file}:{number}") from None
    if not pairs:
        raise UserError("the list has no images", where=str(file))
    return make_list(pairs)


def read_paths(file: Path) -> frozenset[str]:
    """The images of a list that prepare wrote, whatever their labels.

    Raises:
        UserError: no such file.
    """
    lines = present(file).read_bytes().decode("utf-8", "surrogateescape").split("\n")
    return frozenset(line.rpartition(" ")[0] for line in lines if line)


def unlistable(path: str) -> str | None:
    """Why a list cannot hold a path; None: it can."""
    if _PLAIN.fullmatch(path) and ".." not in path:
        return None
    try:
        path.encode("utf-8")
        held = _parse(f"{path} 0", 1)[0]
    except UnicodeEncodeError:
        return "its name is not UTF-8 text"
    except ValueError as error:
        return str(error)
    return None if held == path and "\r" not in path else "its name is not text in one line"


def read_classes(file: Path) -> tuple[str, ...]:
    """Read the class names; line number = label, counted from 0.

    Raises:
        UserError: no such file, or a blank line, or a name that comes twice.
    """
    names = [line.rstrip("\r") for line in _lines(file)]
    while names and not names[-1].strip():
        names.pop()
    if not names:
        raise UserError("no class names in it", where=str(file))
    first: dict[str, int] = {}
    for number, name in enumerate(names, start=1):
        if not name.strip():
            raise UserError("a blank line; every line is a class name", where=f"{file}:{number}")
        if name in first:
            raise UserError(f"class '{name}' is in line {first[name]} already", where=f"{file}:{number}")
        first[name] = number
    return tuple(names)


def _lines(file: Path) -> list[str]:
    # Not splitlines(): file names may hold what Unicode calls a line separator.
    try:
        return present(file).read_bytes().decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"is not UTF-8 text ({error.reason} at byte {error.start})", where=str(file)) from None


def _parse(line: str, classes: int, *, unknown: bool = False) -> tuple[str, int]:
    match = _LINE.fullmatch(line)
    if match is None:
        raise ValueError(f"expected `relative/path label`, got '{line.strip()}'")
    path, label = match["path"], match["label"]
    if not re.fullmatch(r"[+-]?[0-9]+", label):
        raise ValueError(f"expected `relative/path label`; '{label}' is no whole number")
    if not 0 <= int(label) < classes and not (unknown and int(label) == UNKNOWN):
        beside = f", and {UNKNOWN} for unknown images" if unknown else ""
        raise ValueError(f"label {label} is out of range: there are {classes} classes, 0 … {classes - 1}{beside}")
    if _ABSOLUTE.match(path):
        raise ValueError(f"'{path}' is absolute; paths are relative to the source's root")
    if ".." in path and posixpath.normpath(path).split("/")[0] == "..":
        raise ValueError(f"'{path}' leaves the source's root")
    return path, int(label)
