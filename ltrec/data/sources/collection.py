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
    from collections.abc import Container, Iterable, Mapping

    from numpy.typing import NDArray

    from ltrec.artifacts import Split
    from ltrec.data.image_lists import ImageList


@dataclass(frozen=True, order=True)
class Skipped:
    """A file or a class that is left out, and why."""

    path: str
    """Relative to the source's root; a class ends with `/`."""
    reason: str
    of_kind: bool = False
    """Whether the reason tells of a kind of files, and not of this one: it is then said once for all of them."""


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
        """Return the collection with only the images in `paths`; `skipped` says why the others go.

        A class that has images and keeps none goes as well, and the others are renumbered.
        """
        splits = {split: images.filter(paths.__contains__) for split, images in self.splits.items()}
        unknown = tuple(path for path in self.unknown if path in paths)
        kept = replace(self, splits=splits, skipped=self.skipped + skipped, unknown=unknown)
        before, after = (_counts(each.splits.values(), len(self.classes)) for each in (self, kept))
        # The remedy is said with the files of a kind.
        reasons = {skip.path: skip.reason.partition(":")[0] if skip.of_kind else skip.reason for skip in skipped}
        return kept.drop(
            {
                label: f"none of its {before[label]:,} file(s) can be read ({self._why(label, reasons)})"
                for label in np.flatnonzero((before > 0) & (after == 0)).tolist()
            }
        )

    def _why(self, label: int, reasons: Mapping[str, str]) -> str:
        """Return the reasons why files of a class are skipped."""
        paths = [path for images in self.splits.values() for path in images.where(images.labels == label).paths]
        return some(list(dict.fromkeys(reasons[path] for path in paths if path in reasons)))

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


def _counts(lists: Iterable[ImageList], classes: int) -> NDArray[np.int64]:
    """Return the number of images of each class in all lists together, (C,)."""
    labels = np.concatenate([images.labels for images in lists])
    return np.bincount(labels[labels >= 0], minlength=classes).astype(np.int64)
