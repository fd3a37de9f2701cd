"""What a source finds: classes, their images by split, and what it skipped.

A source is a settings class in a file of its own, with a `kind`, a `root` that the paths are relative to, and
`scan() -> Collection`; `prepare.source` is the union of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import compress
from typing import TYPE_CHECKING

import numpy as np

from ltrec.errors import UserError, some

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

    from ltrec.artifacts import Split
    from ltrec.data.image_lists import ImageList


@dataclass(frozen=True, order=True)
class Skipped:
    """A file or a class that is left out, and why."""

    path: str
    """Relative to the source's root; a class ends with `/`."""
    reason: str


@dataclass(frozen=True)
class Collection:
    """Everything that a source offers. `train` is always there; a split that is missing is carved from it."""

    classes: tuple[str, ...]
    splits: Mapping[Split, ImageList]
    skipped: tuple[Skipped, ...] = ()
    unknown: tuple[str, ...] = ()
    """Paths of images of no class of the task, set apart for val and test."""
    supercategories: tuple[str | None, ...] = ()
    """What each class is a kind of, where the source says so; else empty."""
    names: Mapping[str, str] = field(default_factory=dict)
    """What classes are to be called where they are shown; one that is not in it by its own name."""

    groups: Mapping[str, str] = field(default_factory=dict)
    """The group of an image that has one, by its path, where the source was asked for groups."""

    @property
    def shown(self) -> tuple[str, ...]:
        """Return what the classes are called where they are shown."""
        return tuple(self.names.get(name, name) for name in self.classes)

    def called(self, names: Mapping[str, str]) -> Collection:
        """Return the collection with other names to show.

        Raises:
            UserError: one is for a class that there is not.
        """
        classes = [f"'{name}'" for name in self.classes]
        if absent := [f"'{name}'" for name in names if name not in self.classes]:
            raise UserError(
                f"no such class: {some(absent)}; the source has {some(classes)}",
                where="params.yaml: prepare.source.names",
            )
        return replace(self, names=names)

    def keep(self, paths: Container[str], skipped: tuple[Skipped, ...]) -> Collection:
        """Return the collection with only the images in `paths`; `skipped` says why the others go."""
        splits = {split: images.filter(paths.__contains__) for split, images in self.splits.items()}
        unknown = tuple(path for path in self.unknown if path in paths)
        return replace(self, splits=splits, skipped=self.skipped + skipped, unknown=unknown)

    def drop(self, reasons: Mapping[int, str]) -> Collection:
        """Return the collection without the classes whose labels are in `reasons`; the others are renumbered."""
        if not reasons:
            return self
        kept = np.array([label not in reasons for label in range(len(self.classes))], dtype=np.bool_)
        renumbered = np.cumsum(kept) - 1
        splits = {}
        for split, images in self.splits.items():
            remaining = images.where(kept[images.labels])
            splits[split] = replace(remaining, labels=renumbered[remaining.labels].astype(np.int64))
        return replace(
            self,
            classes=tuple(compress(self.classes, kept)),
            supercategories=tuple(compress(self.supercategories, kept)),
            splits=splits,
            skipped=self.skipped + tuple(Skipped(f"{self.classes[at]}/", why) for at, why in reasons.items()),
        )
