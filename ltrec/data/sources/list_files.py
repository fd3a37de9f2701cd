"""Published list files, `path label` a line, such as those of ImageNet-LT, Places-LT and iNaturalist."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from ltrec.data.image_lists import read_classes, read_list
from ltrec.data.sources.annotations import annotation_file, without_repeats
from ltrec.data.sources.collection import Collection
from ltrec.errors import UserError
from ltrec.settings import Settings, Text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ltrec.artifacts import Split
    from ltrec.data.image_lists import ImageList

_SHOWN = 3


class ListsSource(Settings):
    """A list for each split, each line an image's path below `root` and its label, counted from 0."""

    kind: Literal["lists"]
    root: Text = "data"
    """The folder that the lists' paths are relative to; the files below are named relative to it as well."""
    train: Text
    """The list of the training images."""
    val: Text | None = None
    """Of the validation images; null: carved from train."""
    test: Text | None = None
    """Of the test images; null: carved from train."""
    classes: Text | None = None
    """A file with the class names, the first line for label 0; null: a class is called by its label."""

    def scan(self) -> Collection:
        return scan_lists(
            Path(self.root),
            {"train": self.train, "val": self.val, "test": self.test},
            self.classes,
        )


def scan_lists(root: Path, files: dict[Split, str | None], classes: str | None) -> Collection:
    """Read the lists; an image that a list names twice counts once.

    Args:
        root: The folder that paths and files are relative to.
        files: The list of each split that has one.
        classes: The file of class names.

    Raises:
        UserError: a file is missing, a line is not as `read_list` wants it, an image has two classes in one list,
            or, without class names, a label below the largest has no image.
    """
    known = None if classes is None else read_classes(annotation_file(root, classes))
    lists: dict[Split, tuple[Path, ImageList]] = {}
    for split, name in files.items():
        if name is not None:
            file = annotation_file(root, name)
            lists[split] = file, read_list(file, None if known is None else len(known))
    names = known or _numbers([*lists.values()])
    unique = {split: without_repeats(images, names, str(file)) for split, (file, images) in lists.items()}
    return Collection(
        names,
        {split: images for split, (images, _) in unique.items()},
        tuple(skip for _, skipped in unique.values() for skip in skipped),
    )


def _numbers(lists: Sequence[tuple[Path, ImageList]]) -> tuple[str, ...]:
    """Labels as class names."""
    present = np.unique(np.concatenate([images.labels for _, images in lists]))
    classes = int(present[-1]) + 1
    if gaps := classes - len(present):
        # Among so many labels are as many gaps as are shown, however large the largest label.
        first = np.setdiff1d(np.arange(min(classes, len(present) + _SHOWN)), present)[:_SHOWN]
        more = f" and {gaps - _SHOWN:,} more" if gaps > _SHOWN else ""
        raise UserError(
            f"labels have gaps: no list has an image of {', '.join(map(str, first))}{more}, but of {classes - 1};"
            " number the classes from 0 on, or name them all in prepare.source.classes",
            where=str(next(file for file, images in lists if images.labels.max() == present[-1])),
        )
    return tuple(map(str, range(classes)))
