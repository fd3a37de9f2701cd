"""Finding image files below folders: hidden files and litter are passed over, what no list can hold is told apart.

ImageNet has 1.3 million files: what is a folder is read off the listing, without a look at each file.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from ltrec.artifacts import irregular
from ltrec.console import printable
from ltrec.data.image_lists import listable, make_list
from ltrec.data.sources.collection import Skipped
from ltrec.errors import UserError, some

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from ltrec.data.image_lists import ImageList

# What systems and programs leave behind; hidden files (.DS_Store, .gitignore) are passed over as well.
_LITTER = frozenset({
    "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir", "$recycle.bin", "lost+found",
    "system volume information",
})  # fmt: skip

_IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".heic", ".avif"})


def images_below(folders: Iterable[tuple[Path, int]], root: Path) -> tuple[ImageList, list[Skipped]]:
    """Return the images below class folders, however deep, by label, then path; and the files that cannot be images.

    Each class folder comes with its label, and lies below `root`, which the paths are relative to.
    """
    images, skipped = [], []
    for folder, label in folders:
        for path, reason in _files(str(folder), _prefix(folder, root), ()):
            if reason is None:
                images.append((label, path))
            else:
                skipped.append(Skipped(path, reason))
    return make_list([(path, label) for label, path in sorted(images)]), skipped


def images_of_classes(folder: Path, root: Path, labels: Mapping[str, int]) -> tuple[ImageList, list[Skipped]]:
    """Return the images in `folder/<class>/` as paths relative to `root`, and the files that are none.

    `labels` are the classes' labels by the names of their folders; a class may lack a folder.

    Raises:
        UserError: there is no such folder, or a class folder has no label.
    """
    folders, strays = visible_folders(folder, root)
    unknown = sorted(repr(each.name) for each in folders if each.name not in labels)
    if unknown:
        raise UserError(
            f"holds {len(unknown)} class folder(s) that are none of the {len(labels)} classes: {some(unknown)}",
            where=str(folder),
        )
    images, skipped = images_below([(each, labels[each.name]) for each in folders], root)
    return images, [Skipped(path, "not in a class folder") for path in strays] + skipped


def visible_folders(folder: Path, root: Path) -> tuple[list[Path], list[str]]:
    """Return the folders in a folder, and the files beside them as paths relative to `root`.

    Raises:
        UserError: the folder cannot be read.
    """
    folders, strays = [], []
    for entry in entries(folder):
        if _holds(entry.is_dir):
            folders.append(Path(entry.path))
        else:
            strays.append(printable(_prefix(folder, root) + entry.name))
    return folders, strays


def entries(folder: Path | str) -> list[os.DirEntry[str]]:
    """Return what is in a folder, but for hidden files and litter.

    Raises:
        UserError: the folder cannot be read.
    """
    try:
        with os.scandir(folder) as every:
            return [each for each in every if not each.name.startswith(".") and each.name.casefold() not in _LITTER]
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror})", where=str(folder)) from None


def hidden_image_folders(folder: Path) -> list[str]:
    """Return the names of the hidden folders in a folder that have an image file in them, by its suffix, in order.

    Raises:
        UserError: the folder cannot be read.
    """
    try:
        with os.scandir(folder) as every:
            hidden = [each for each in every if each.name.startswith(".") and _holds(each.is_dir)]
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror})", where=str(folder)) from None
    return sorted(each.name for each in hidden if _has_image(each.path))


def _has_image(folder: str) -> bool:
    """Return whether a file in a folder is called like an image; what cannot be read has none."""
    with contextlib.suppress(OSError), os.scandir(folder) as every:
        return any(os.path.splitext(each.name)[1].lower() in _IMAGE_SUFFIXES for each in every)  # noqa: PTH122 - by the thousand
    return False


def is_text(name: str) -> bool:
    """Return whether a file name is UTF-8; those that are not arrive with lone surrogates."""
    return name.isascii() or not re.search("[\ud800-\udfff]", name)


def _files(folder: str, prefix: str, above: tuple[str, ...]) -> Iterator[tuple[str, str | None]]:
    """Yield the path of each file below a folder, with what keeps it from being an image file, if anything.

    `prefix` is what stands before the names in the folder; `above` are the real paths of the folders above it.
    """
    real = os.path.realpath(folder)
    if real in above:
        yield printable(prefix[:-1]), "a link to a folder above it"
        return
    for entry in entries(folder):
        path = prefix + entry.name
        if _holds(entry.is_dir):
            yield from _files(entry.path, f"{path}/", (*above, real))
        elif not _holds(entry.is_file):  # reading a pipe would wait for ever
            yield printable(path), "not a regular file" if irregular(Path(entry.path)) else "a broken link"
        else:
            try:
                listable(path)
            except ValueError as error:
                yield printable(path), str(error)
            else:
                yield path, None


def _holds(kind: Callable[[], bool]) -> bool:
    """Return whether an entry is of a kind; a link to itself is of none."""
    try:
        return kind()
    except OSError:
        return False


def _prefix(folder: Path, root: Path) -> str:
    """Return what stands before a name in the folder to make a path relative to `root`."""
    return "" if folder == root else f"{folder.relative_to(root).as_posix()}/"
