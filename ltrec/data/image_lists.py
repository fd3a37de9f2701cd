"""Reading and writing the field's list formats: `relative/path label` a line, and a class name a line."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from itertools import compress
from typing import TYPE_CHECKING

import numpy as np

from ltrec.artifacts import UNKNOWN, present
from ltrec.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

# Paths that need no closer look, as nearly all of a benchmark.
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")
_ABSOLUTE = re.compile(r"/|\\|[A-Za-z]:[\\/]")
# Lines without any of these signs, each behind its line end, can be divided at their last blank without another look.
_ODD = ("\t", "\r", "  ", "\n ", "\n\n", "..", "./", "//", "\n/", "\n\\", ":/", ":\\")
_BLOCK = 1 << 20  # bytes
_MOST_CLASSES = 10**9
_MOST_DIGITS = 9
_LONGEST = 100  # characters that a message repeats


@dataclass(frozen=True, eq=False)
class ImageList:
    """N images: where they lie and what they show."""

    paths: Sequence[str]
    """Paths relative to the source's root, with `/` on every system."""
    labels: NDArray[np.int64]
    """Labels (N,), between 0 and C - 1; -1 for an image of no class of the task."""

    def __post_init__(self) -> None:
        assert self.labels.shape == (len(self.paths),)

    def __len__(self) -> int:
        return len(self.paths)

    def counts(self, classes: int) -> NDArray[np.int64]:
        """Return the number of images of each class, (C,); unknown ones are in none."""
        return np.bincount(self.labels[self.labels != UNKNOWN], minlength=classes).astype(np.int64)

    def known(self) -> ImageList:
        """Return the images of the task's classes."""
        return self.where(self.labels != UNKNOWN)

    def where(self, mask: NDArray[np.bool_]) -> ImageList:
        """Return the images where the mask, (N,), is true, in their order."""
        return ImageList(tuple(compress(self.paths, mask.tolist())), self.labels[mask])

    def filter(self, keeps: Callable[[str], bool]) -> ImageList:
        """Return the images whose path `keeps` is true of, in their order."""
        return self.where(np.fromiter(map(keeps, self.paths), dtype=np.bool_, count=len(self)))


def make_list(pairs: Sequence[tuple[str, int]]) -> ImageList:
    """Return the list of (path, label) pairs."""
    return ImageList(tuple(path for path, _ in pairs), np.array([label for _, label in pairs], dtype=np.int64))


def list_text(images: ImageList) -> str:
    """Return the text that `read_list` reads back."""
    return "".join(f"{path} {label}\n" for path, label in zip(images.paths, images.labels.tolist(), strict=True))


def read_list(file: Path, classes: int | None, *, unknown: bool = False, below: str | None = None) -> ImageList:
    """Return the list in a file; blank lines, CRLF and a byte-order mark do no harm.

    Args:
        file: The list.
        classes: The number of classes C; None: any label from 0 on is allowed.
        unknown: Whether images may have the label -1: of no class of the task.
        below: A folder to put before the paths, which may begin with a `/` then; None: they stay as they are.

    Raises:
        UserError: there is no such file, no image in it, or a line without a label, with a label that is no
            whole number in 0 … C - 1, or with a path that is absolute or leaves the root.
    """
    paths: list[str] = []
    labels: list[NDArray[np.int64]] = []
    for first, lines in _blocks(file):
        entries = lines if below is None else [line.strip() and f"{below}/{line.lstrip('/')}" for line in lines]
        of_block = _divide(entries, classes) or _divide_one_by_one(entries, classes, file, first, unknown=unknown)
        paths += of_block[0]
        labels.append(np.array(of_block[1], dtype=np.int64))
    if not paths:
        raise UserError("the list has no images", where=str(file))
    return ImageList(tuple(paths), np.concatenate(labels))


def lines_of(file: Path) -> list[tuple[int, str]]:
    """Return the lines of a UTF-8 file that are not blank, without blanks at their ends, numbered from 1.

    Raises:
        UserError: there is no such file, or it is not UTF-8 text.
    """
    return [
        (number, line.rstrip())
        for first, lines in _blocks(file)
        for number, line in enumerate(lines, start=first)
        if line.strip()
    ]


def divide_line(line: str) -> tuple[str, str]:
    """Return a line's path, as lists hold it, and whatever stands behind the last blank: paths may hold blanks.

    Raises:
        ValueError: the line has no such two parts, or no list can hold the path; the message says why.
    """
    text = line.removesuffix("\r").rstrip(" \t")
    blank = max(text.rfind(" "), text.rfind("\t"))
    if not text[: max(blank, 0)].strip():
        raise ValueError(f"expected `relative/path label`, got '{_short(line.strip())}'")
    return listable(text[:blank]), text[blank + 1 :]


def listable(path: str) -> str:
    """Return a path as lists hold it: relative to the source's root, each file under one name only (not `./a//b`).

    Raises:
        ValueError: no list can hold the path; the message says why.
    """
    if _PLAIN.fullmatch(path):
        return path
    if not path.strip() or "\n" in path or "\r" in path:
        raise ValueError("its name is not text in one line")
    if re.search("[\ud800-\udfff]", path):
        raise ValueError("its name is not UTF-8 text")
    if _ABSOLUTE.match(path):
        raise ValueError(f"'{_short(path)}' is absolute; paths are relative to the source's root")
    if ".." in path and posixpath.normpath(path).split("/")[0] == "..":
        raise ValueError(f"'{_short(path)}' leaves the source's root")
    # normpath() would take `a/..` away, though `a` may be a link to elsewhere.
    parts = [part for part in path.split("/") if part not in {"", "."}]
    if not parts:
        raise ValueError(f"'{path}' names nothing below the source's root")
    return "/".join(parts)


def read_classes(file: Path) -> tuple[str, ...]:
    """Return the class names in a file, the first line's for label 0.

    Raises:
        UserError: there is no such file, or a line is blank, or a name comes twice.
    """
    names = [line.rstrip("\r") for _, lines in _blocks(file) for line in lines]
    while names and not names[-1].strip():
        names.pop()
    if not names:
        raise UserError("no class names in it", where=str(file))
    line_of: dict[str, int] = {}
    for number, name in enumerate(names, start=1):
        if not name.strip():
            raise UserError("a blank line; every line is a class name", where=f"{file}:{number}")
        if (earlier := line_of.setdefault(name, number)) != number:
            raise UserError(f"class '{_short(name)}' is in line {earlier} already", where=f"{file}:{number}")
    return tuple(names)


def _blocks(file: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the lines of a UTF-8 file, some thousands at a time, with the number of the first."""
    start, first = 0, 1
    with present(file).open("rb") as opened:
        while block := opened.read(_BLOCK) + opened.readline():
            try:
                text = block.decode("utf-8" if start else "utf-8-sig")
            except UnicodeDecodeError as error:
                raise UserError(
                    f"is not UTF-8 text ({error.reason} at byte {start + error.start})", where=str(file)
                ) from None
            # splitlines() would also split at Unicode's line separators, which file names may hold.
            lines = text.removesuffix("\n").split("\n")
            yield first, lines
            start, first = start + len(block), first + len(lines)


def _divide(lines: Sequence[str], classes: int | None) -> tuple[Sequence[str], Sequence[int]] | None:
    """Return the paths and labels of lines that have nothing odd about them, else None: they need `_parse` then."""
    text = "\n" + "\n".join(lines)
    if any(sign in text for sign in _ODD):
        return None
    blanks = [line.rfind(" ") for line in lines]
    paths = [line[:blank] for line, blank in zip(lines, blanks, strict=True)]
    labels = [line[blank + 1 :] for line, blank in zip(lines, blanks, strict=True)]
    digits, lengths = "".join(labels), list(map(len, labels))
    if min(blanks) < 1 or min(lengths) < 1 or max(lengths) > _MOST_DIGITS or any(map(str.isspace, paths)):
        return None
    numbers = list(map(int, labels)) if digits.isascii() and digits.isdecimal() else []
    return (paths, numbers) if numbers and (classes is None or max(numbers) < classes) else None


def _divide_one_by_one(
    lines: Sequence[str], classes: int | None, file: Path, first: int, *, unknown: bool
) -> tuple[Sequence[str], Sequence[int]]:
    """Return the paths and labels of any lines; an error names the number of its line, `first` being the first's."""
    paths, labels = [], []
    for number, line in enumerate(lines, start=first):
        if line.strip():
            try:
                path, label = _parse(line, classes, unknown=unknown)
            except ValueError as error:
                raise UserError(str(error), where=f"{file}:{number}") from None
            paths.append(path)
            labels.append(label)
    return paths, labels


def _parse(line: str, classes: int | None, *, unknown: bool = False) -> tuple[str, int]:
    path, label = divide_line(line)
    if not re.fullmatch(r"[+-]?[0-9]+", label):
        raise ValueError(f"expected `relative/path label`; '{_short(label)}' is no whole number")
    highest = (_MOST_CLASSES if classes is None else classes) - 1
    allowed = len(label) <= _MOST_DIGITS + 1 and (0 <= int(label) <= highest or (unknown and int(label) == UNKNOWN))
    if not allowed:
        known = f"there are {classes} classes" if classes is not None else "classes count from 0"
        beside = f", and {UNKNOWN} for unknown images" if unknown else ""
        hint = "; images of no class belong to prepare.openset" if label.startswith("-") and not unknown else ""
        raise ValueError(f"label {_short(label)} is out of range: {known}, 0 … {highest}{beside}{hint}")
    return path, int(label)


def _short(text: str) -> str:
    """Return as much as a message repeats of a file that may be anything."""
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
