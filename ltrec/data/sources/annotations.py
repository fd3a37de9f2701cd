"""What sources share that read annotation files: where the file lies, and what its entries may not be."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import AfterValidator

from ltrec import console
from ltrec.artifacts import present
from ltrec.data.image_lists import listable
from ltrec.data.sources.collection import Skipped
from ltrec.errors import UserError, some
from ltrec.settings import Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ltrec.data.image_lists import ImageList


Below = Annotated[Text, AfterValidator(listable)]
"""A folder relative to the source's root, and inside of it."""


def annotation_file(root: Path, name: str) -> Path:
    """The file, whose name is relative to the source's root; one that lies elsewhere is warned of.

    Raises:
        UserError: no such file.
    """
    file = root / name
    if not root.exists() and file.is_relative_to(root):
        raise UserError("no such folder; prepare.source.root names where the data lies", where=str(root))
    # By name: DVC follows links inside of the root.
    if not Path(os.path.abspath(present(file))).is_relative_to(os.path.abspath(root)):  # noqa: PTH100
        console.warn(
            f"prepare: {file} lies outside {root}, so that `dvc repro` does not see when it changes:"
            " its stage depends on prepare.source.root only"
        )
    return file


def listed(paths: Iterable[str], entry: str, where: str, *, first: int = 1) -> tuple[str, ...]:
    """Paths as lists hold them.

    Args:
        paths: Relative to the source's root.
        entry: What a path belongs to, such as `row {}`, to be filled with its place.
        where: The file that they are from.
        first: The first place.

    Raises:
        UserError: no list can hold some of them.
    """
    usable, refused = [], []
    for place, path in enumerate(paths, start=first):
        try:
            usable.append(listable(path))
        except ValueError as error:
            refused.append(f"{entry.format(place)} ({error})")
    if refused:
        raise UserError(f"{len(refused):,} path(s) cannot be used: {some(refused)}", where=where)
    return tuple(usable)


def without_repeats(images: ImageList, classes: Sequence[str], where: str) -> tuple[ImageList, tuple[Skipped, ...]]:
    """Each image once, the first time that it comes; the others are skipped.

    Raises:
        UserError: an image has two classes.
    """
    if len(set(images.paths)) == len(images):
        return images, ()
    label_of: dict[str, int] = {}
    first = np.ones(len(images), dtype=np.bool_)
    conflicts = []
    for at, (path, label) in enumerate(zip(images.paths, images.labels.tolist(), strict=True)):
        first[at] = path not in label_of
        if label_of.setdefault(path, label) != label:
            conflicts.append(f"'{path}' ('{classes[label_of[path]]}' and '{classes[label]}')")
    if conflicts:
        raise UserError(f"{len(conflicts)} image(s) have two classes: {some(conflicts)}", where=where)
    repeats = images.where(~first).paths
    return images.where(first), tuple(Skipped(path, "listed again in the same split") for path in repeats)
