"""Unknown images: val and test images of no class of the task, by which rejection is judged (Liu et al. 2019)."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import model_validator

from ltrec import console
from ltrec.artifacts import UNKNOWN
from ltrec.data.drawing import Quota, carve
from ltrec.data.image_lists import ImageList, divide_line, lines_of
from ltrec.data.sources.annotations import annotation_file
from ltrec.errors import UserError, some
from ltrec.settings import Fraction, Settings, Text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Self

    from ltrec.artifacts import Split
    from ltrec.data.drawing import Draw
    from ltrec.data.sources.collection import Collection

_WHERE = "params.yaml: prepare.openset"


class OpenSetSettings(Settings):
    """Which images are unknown: of no class of the task, for val and test alone."""

    classes: tuple[Text, ...] = ()
    """Classes of the source that are no classes of the task; all their images, of whatever split, are unknown."""
    list: Text | None = None
    """A published list of unknown images, `path label` a line; relative to the source's root, as its paths are.
    The labels do not matter. Images of the source that stand in it leave their classes."""
    val: Fraction = 0.2
    """The share that goes to val, to choose thresholds on, drawn by seed; the rest goes to test."""

    @model_validator(mode="after")
    def _something_is_unknown(self) -> Self:
        if not self.classes and self.list is None:
            raise ValueError("says of no image that it is unknown; give classes, list or both")
        return self

    def set_apart(self, collection: Collection, root: Path) -> Collection:
        """Return the source's collection with the known classes alone, and the unknown images apart, each once.

        Raises:
            UserError: the source has no such class, or the list cannot be read.
        """
        labels = _labels(self.classes, collection.classes)
        splits = collection.splits.values()
        unknown = [path for images in splits for path in images.where(np.isin(images.labels, labels)).paths]
        known = replace(collection.drop(dict.fromkeys(labels, "")), skipped=collection.skipped)
        if self.list is not None:
            listed = _read(annotation_file(root, self.list))
            known = _without(known, listed, self.list)
            unknown += listed
        return replace(known, unknown=tuple(dict.fromkeys(unknown)))

    def add(self, splits: Mapping[Split, ImageList], unknown: Sequence[str], draw: Draw) -> dict[Split, ImageList]:
        """Return the splits with the unknown images, given by their paths, at the ends of val and test.

        Raises:
            UserError: there is no unknown image.
        """
        if not unknown:
            raise UserError("there is no unknown image that can be read", where=_WHERE)
        images = ImageList(tuple(unknown), np.zeros(len(unknown), dtype=np.int64))
        number = self._number_for_val(len(unknown))
        drawn = carve(images, draw.of_units(images), {"val": Quota(0, number, number)})
        added: dict[Split, ImageList] = {"val": _as_unknown(drawn["val"]), "test": _as_unknown(drawn["train"])}
        return {split: _joined(known, added[split]) if split in added else known for split, known in splits.items()}

    def _number_for_val(self, unknown: int) -> int:
        """Return how many unknown images go to val: one at least, if any are asked for, but never all."""
        return min(max(1, math.floor(self.val * unknown + 1e-9)), unknown - 1) if self.val else 0


def _labels(names: Sequence[str], classes: Sequence[str]) -> list[int]:
    labels = {name: label for label, name in enumerate(classes)}
    for name in names:
        if name not in labels:
            known = some([f"'{each}'" for each in classes])
            raise UserError(f"the source has no class '{name}'; it has {known}", where=f"{_WHERE}.classes")
    return [labels[name] for name in dict.fromkeys(names)]


def _read(file: Path) -> list[str]:
    """Return the paths in a list of unknown images."""
    paths = []
    for number, line in lines_of(file):
        try:
            paths.append(divide_line(line)[0])
        except ValueError as error:
            raise UserError(str(error), where=f"{file}:{number}") from None
    if not paths:
        raise UserError("the list has no images", where=str(file))
    return paths


def _without(known: Collection, listed: Sequence[str], name: str) -> Collection:
    """Return the collection without the images that the list called `name` holds."""
    unknown = set(listed)
    splits = {split: images.filter(lambda path: path not in unknown) for split, images in known.splits.items()}
    left = sum(map(len, known.splits.values())) - sum(map(len, splits.values()))
    if left:
        console.say(f"prepare: {left} image(s) leave their classes: {name} says that they are unknown")
    list_path = Path(name).as_posix()  # the list itself may lie among the images, and is none
    return replace(known, splits=splits, skipped=tuple(skip for skip in known.skipped if skip.path != list_path))


def _as_unknown(images: ImageList) -> ImageList:
    return replace(images, labels=np.full(len(images), UNKNOWN, dtype=np.int64))


def _joined(first: ImageList, second: ImageList) -> ImageList:
    return ImageList((*first.paths, *second.paths), np.concatenate([first.labels, second.labels]))
