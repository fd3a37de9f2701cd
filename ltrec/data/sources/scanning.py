"""Finding files below folders: hidden files and litter passed over, names that a list cannot hold told apart.

ImageNet has 1.3 million files: kinds come with the folder's listing, without a look at each file.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from ltrec.data.image_lists import listable, make_list
from ltrec.data.sources.collection import Skipped
from ltrec.errors import UserError, some

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from ltrec.data.image_lists import ImageList

# What systems and programs leave behind; hidden files (.DS_Store, .gitignore) are passed over as well.
_LITTER = frozenset(
    {
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        "icon\r",
        "__macosx",
        "@eadir",
        "$recycle.bin",
        "lost+found",
        "system volume information",
    }
)


def images_below(folders: Iterable[tuple[Path, int]], root: Path) -> tuple[ImageList, list[Skipped]]:
    """The images below class folders, however deep, and the files that cannot be images.

    Args:
        folders: Class folders, each with its label.
        root: What the paths are to be relative to; all folders lie below it.

    Returns:
        A list by label, then path.
    """
    found = [(label, path, why) for folder, label in folders for path, why in _files(folder, root)]
    images = make_list([(path, label) for label, path, why in sorted(found, key=lambda file: file[:2]) if not why])
    return images, [Skipped(path, why) for _, path, why in found if why]


def images_of_classes(folder: Path, root: Path, labels: Mapping[str, int]) -> tuple[ImageList, list[Skipped]]:
    """The images in `folder/<class>/`, and the files that are none.

    Args:
        folder: Holds a folder for each class, or for some.
        root: What the paths are to be relative to.
        labels: By the class folders' names.

    Raises:
        UserError: no such folder, or a class folder that `labels` does not have.
    """
    folders, strays = visible_folders(folder, root)
    unknown = sorted(repr(at.name) for at in folders if at.name not in labels)
    if unknown:
        raise UserError(
            f"holds {len(unknown)} class folder(s) that are none of the {len(labels)} classes: {some(unknown)}",
            where=str(folder),
        )
    images, unfit = images_below([(at, labels[at.name]) for at in folders], root)
    return images, [Skipped(path, "not in a class folder") for path in strays] + unfit


def visible_folders(folder: Path, root: Path) -> tuple[list[Path], list[str]]:
    """Folders in a folder, and the paths of the files beside them.

    Raises:
        UserError: the folder cannot be read.
    """
    listed = list(entries(folder))
    folders = [Path(entry.path) for entry in listed if _holds(entry.is_dir)]
    prefix = _prefix(folder, root)
    return folders, [_printable(prefix + entry.name) for entry in listed if not _holds(entry.is_dir)]


def entries(folder: Path | str) -> Iterator[os.DirEntry[str]]:
    """What is in a folder, but for hidden files and litter.

    Raises:
        UserError: the folder cannot be read.
    """
    try:
        with os.scandir(folder) as everything:
            visible = [entry for entry in everything if not _is_litter(entry.name)]
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror})", where=str(folder)) from None
    yield from visible


def is_text(name: str) -> bool:
    """Whether a file name is UTF-8; those that are not arrive with lone surrogates."""
    return name.isascii() or not re.search("[\ud800-\udfff]", name)


def _files(folder: Path, root: Path) -> Iterator[tuple[str, str | None]]:
    """Paths below a class folder, each with what keeps it from being an image file, if anything."""
    yield from _below(str(folder), _prefix(folder, root), ())


def _below(folder: str, prefix: str, above: tuple[str, ...]) -> Iterator[tuple[str, str | None]]:
    real = os.path.realpath(folder)
    if real in above:
        yield _printable(prefix[:-1]), "a link to a folder above it"
        return
    for entry in entries(folder):
        path = prefix + entry.name
        if _holds(entry.is_dir):
            yield from _below(entry.path, f"{path}/", (*above, real))
        elif not _holds(entry.is_file):  # reading a pipe would wait for ever
            yield _printable(path), "a broken link" if entry.is_symlink() else "not a regular file"
        else:
            yield _printable(path), _unlistable(path)


def _holds(kind: Callable[[], bool]) -> bool:
    """Whether an entry is of a kind; a link to itself is of none."""
    try:
        return kind()
    except OSError:
        return False


def _unlistable(path: str) -> str | None:
    try:
        listable(path)
    except ValueError as error:
        return str(error)
    return None


def _is_litter(name: str) -> bool:
    return name.startswith(".") or name.casefold() in _LITTER


def _prefix(folder: Path, root: Path) -> str:
    relative = folder.relative_to(root).as_posix()
    return "" if relative == "." else f"{relative}/"


def _printable(path: str) -> str:
    """In one line, with odd bytes spelt out."""
    text = path if is_text(path) else path.encode("utf-8", "backslashreplace").decode()
    return text.replace("\n", "\\n").replace("\r", "\\r")
