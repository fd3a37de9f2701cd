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
from ltrec.data.image_lists import ImageList, divide_line, lines_of
from ltrec.data.sources.annotations import annotation_file
from ltrec.data.splits import draw_ranks
from ltrec.errors import UserError, some
from ltrec.settings import Fraction, Settings, Text

if TYPE_CHECKING:
    from collections.abc import Container, Mapping, Sequence
    from typing import Self

    from ltrec.artifacts import Split
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

    def set_apart(self, found: Collection, root: Path) -> Collection:
        """The known classes of what a source offers, and the unknown images apart from them, each once.

        Raises:
            UserError: the source has no such class, or the list cannot be read.
        """
        labels = _labels(self.classes, found.classes)
        unknown = [
            path for images in found.splits.values() for path in images.where(np.isin(images.labels, labels)).paths
        ]
        known = replace(found.drop(dict.fromkeys(labels, "")), skipped=found.skipped)
        if self.list is not None:
            listed = _read(root, self.list)
            known = _without(known, set(listed), self.list)
            unknown += listed
        return replace(known, unknown=tuple(dict.fromkeys(unknown)))

    def add(self, splits: Mapping[Split, ImageList], unknown: Sequence[str], seed: int) -> dict[Split, ImageList]:
        """Put unknown images at the ends of val and test.

        Raises:
            UserError: there are none.
        """
        if not unknown:
            raise UserError("there is no unknown image that can be read", where=_WHERE)
        images = ImageList(tuple(unknown), np.zeros(len(unknown), dtype=np.int64))
        to_val = draw_ranks(images, seed) < self._share(len(unknown))
        images = replace(images, labels=np.full(len(unknown), UNKNOWN, dtype=np.int64))
        parts: dict[Split, ImageList] = {"val": images.where(to_val), "test": images.where(~to_val)}
        return {split: _joined(known, parts[split]) if split in parts else known for split, known in splits.items()}

    def _share(self, unknown: int) -> int:
        """Unknown images for val: one at least, if any are asked for, but never all."""
        return min(max(1, math.floor(self.val * unknown + 1e-9)), unknown - 1) if self.val else 0


def _labels(names: Sequence[str], classes: Sequence[str]) -> list[int]:
    label = {name: number for number, name in enumerate(classes)}
    for name in names:
        if name not in label:
            known = some([f"'{each}'" for each in classes])
            raise UserError(f"the source has no class '{name}'; it has {known}", where=f"{_WHERE}.classes")
    return [label[name] for name in dict.fromkeys(names)]


def _read(root: Path, name: str) -> tuple[str, ...]:
    """The paths in a list of unknown images."""
    file = annotation_file(root, name)
    paths = []
    for number, line in lines_of(file):
        try:
            paths.append(divide_line(line)[0])
        except ValueError as error:
            raise UserError(str(error), where=f"{file}:{number}") from None
    if not paths:
        raise UserError("the list has no images", where=str(file))
    return tuple(paths)


def _without(known: Collection, listed: Container[str], name: str) -> Collection:
    """Without the images that the list `name` calls unknown."""
    splits = {
        split: images.where(np.array([path not in listed for path in images.paths], dtype=np.bool_))
        for split, images in known.splits.items()
    }
    left = sum(map(len, known.splits.values())) - sum(map(len, splits.values()))
    if left:
        console.say(f"prepare: {left} image(s) leave their classes: {name} says that they are unknown")
    own = Path(name).as_posix()  # the list itself may lie among the images, and is none
    return replace(known, splits=splits, skipped=tuple(skip for skip in known.skipped if skip.path != own))


def _joined(first: ImageList, second: ImageList) -> ImageList:
    return ImageList(first.paths + second.paths, np.concatenate([first.labels, second.labels]))
