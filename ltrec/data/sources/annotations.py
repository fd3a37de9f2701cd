"""Reading annotation files, for the sources that have them: where a file lies, and what it may say of an image."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import AfterValidator

from ltrec import console
from ltrec.artifacts import present
from ltrec.data.image_lists import listable
from ltrec.data.sources.collection import Collection, Skipped
from ltrec.errors import UserError, some
from ltrec.settings import Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ltrec.artifacts import Split
    from ltrec.data.image_lists import ImageList


Below = Annotated[Text, AfterValidator(listable)]
"""A folder inside the source's root, relative to it."""


def annotation_file(root: Path, name: str) -> Path:
    """Return the file whose name is relative to the source's root; warn if it lies outside the root.

    Raises:
        UserError: there is no such file.
    """
    file = root / name
    if not root.exists() and file.is_relative_to(root):
        raise UserError("no such folder; prepare.source.root names where the data lies", where=str(root))
    # Names are compared, not what links lead to: DVC follows links inside of the root.
    if not Path(os.path.abspath(present(file))).is_relative_to(os.path.abspath(root)):  # noqa: PTH100
        console.warn(
            f"prepare: {file} lies outside {root}, so that `dvc repro` does not see when it changes:"
            " its stage depends on prepare.source.root only"
        )
    return file


def listable_paths(paths: Iterable[str], entry: str, where: str, *, first: int = 1) -> tuple[str, ...]:
    """Return paths in the form that image lists hold.

    Args:
        paths: Paths relative to the source's root.
        entry: How a message names the entry that a path belongs to, such as `row {}`; its number is filled in.
        where: The file that the paths are from.
        first: The first entry's number.

    Raises:
        UserError: no list can hold some of the paths.
    """
    usable, refused = [], []
    for number, path in enumerate(paths, start=first):
        try:
            usable.append(listable(path))
        except ValueError as error:
            refused.append(f"{entry.format(number)} ({error})")
    if refused:
        raise UserError(f"{len(refused):,} path(s) cannot be used: {some(refused)}", where=where)
    return tuple(usable)


def distinct_names(names: Sequence[str], ids: Sequence[object]) -> tuple[str, ...]:
    """Return class names that differ: where classes share a name, each gets its id behind it."""
    times = Counter(names)
    return tuple(name if times[name] == 1 else f"{name} ({each})" for name, each in zip(names, ids, strict=True))


def without_repeats(images: ImageList, classes: Sequence[str], where: str) -> tuple[ImageList, tuple[Skipped, ...]]:
    """Return each image once, where it comes first, and the repeats as skipped.

    Raises:
        UserError: an image has two classes.
    """
    if len(set(images.paths)) == len(images):
        return images, ()
    label_of: dict[str, int] = {}
    is_first = np.ones(len(images), dtype=np.bool_)
    conflicts = []
    for place, (path, label) in enumerate(zip(images.paths, images.labels.tolist(), strict=True)):
        is_first[place] = path not in label_of
        if label_of.setdefault(path, label) != label:
            conflicts.append(f"'{path}' ('{classes[label_of[path]]}' and '{classes[label]}')")
    if conflicts:
        raise UserError(f"{len(conflicts)} image(s) have two classes: {some(conflicts)}", where=where)
    repeats = images.where(~is_first).paths
    return images.where(is_first), tuple(Skipped(path, "listed again in the same split") for path in repeats)


def collection_of(classes: Sequence[str], lists: Mapping[Split, tuple[ImageList, Path]]) -> Collection:
    """Return the collection of the lists that files give, where an image that a file names twice counts once.

    Raises:
        UserError: an image has two classes in one file.
    """
    splits: dict[Split, ImageList] = {}
    skipped: list[Skipped] = []
    for split, (images, file) in lists.items():
        splits[split], repeats = without_repeats(images, classes, str(file))
        skipped += repeats
    return Collection(tuple(classes), splits, tuple(skipped))
