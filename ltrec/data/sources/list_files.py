"""Published list files, `path label` a line, such as those of ImageNet-LT, Places-LT and iNaturalist."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from ltrec.data.image_lists import read_classes, read_list
from ltrec.data.sources.annotations import annotation_file, collection_of
from ltrec.errors import UserError
from ltrec.settings import Settings, Text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ltrec.artifacts import Split
    from ltrec.data.image_lists import ImageList
    from ltrec.data.sources.collection import Collection

_SHOWN = 3


class ListsSource(Settings):
    """A list for each split, each line an image's path below `root` and its label, counted from 0."""

    kind: Literal["lists"]
    root: Text = "data"
    """The folder that the lists' paths are relative to; the files below are named relative to it as well."""
    train: Text
    """The list of the training images."""
    val: Text | None = None
    """The list of the validation images; null: they are carved from train."""
    test: Text | None = None
    """The list of the test images; null: they are carved from train."""
    classes: Text | None = None
    """A file with the class names, the first line for label 0; null: a class is called by its label."""

    def scan(self) -> Collection:
        """Return what the lists name; whether each image is there shows later, when it is read.

        Raises:
            UserError: a file is missing, a line is not as `read_list` wants it, an image has two classes in one list,
                or, without class names, a label below the largest has no image.
        """
        root = Path(self.root)
        names = None if self.classes is None else read_classes(annotation_file(root, self.classes))
        files: dict[Split, str | None] = {"train": self.train, "val": self.val, "test": self.test}
        lists: dict[Split, tuple[ImageList, Path]] = {}
        for split, name in files.items():
            if name is not None:
                file = annotation_file(root, name)
                lists[split] = read_list(file, None if names is None else len(names)), file
        return collection_of(names or _numbers([*lists.values()]), lists)


def _numbers(lists: Sequence[tuple[ImageList, Path]]) -> tuple[str, ...]:
    """Return the labels as class names."""
    used = np.unique(np.concatenate([images.labels for images, _ in lists]))
    classes = int(used[-1]) + 1
    if gaps := classes - len(used):
        # The gaps that are shown lie below this bound, however large the largest label.
        first = np.setdiff1d(np.arange(min(classes, len(used) + _SHOWN)), used)[:_SHOWN]
        more = f" and {gaps - _SHOWN:,} more" if gaps > _SHOWN else ""
        raise UserError(
            f"labels have gaps: no list has an image of {', '.join(map(str, first))}{more}, but of {classes - 1};"
            " number the classes from 0 on, or name them all in prepare.source.classes",
            where=str(next(file for images, file in lists if images.labels.max() == used[-1])),
        )
    return tuple(map(str, range(classes)))
