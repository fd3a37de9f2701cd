"""A first look at a folder of images: how many of which class, and how large they are. No image is decoded."""

from __future__ import annotations

import statistics
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ltrec.data.images.formats import open_image
from ltrec.data.sources.folder import FolderSource
from ltrec.errors import UserError

if TYPE_CHECKING:
    from ltrec.artifacts import Split

_LOOKED_AT = 500  # images whose size is read, spread over all


@dataclass(frozen=True)
class Survey:
    """What a folder of images holds."""

    root: str
    classes: tuple[str, ...]
    counts: tuple[int, ...]
    """Images of each class in the training folder or, without split folders, in all."""
    given: frozenset[Split]
    """The splits that have a folder of their own."""
    short_side: int
    """The median of the images' shorter sides, in pixels."""

    @property
    def images(self) -> int:
        """Return the number of images that the counts add up to."""
        return sum(self.counts)


def survey(root: str) -> Survey:
    """Return what a folder holds, one sub-folder a class, or split folders above them.

    Raises:
        UserError: It is no such folder, has fewer than two classes with files, or none that Pillow recognises.
    """
    source = FolderSource(root=root)
    found = source.scan()
    train = found.splits["train"]
    counts = train.counts(len(found.classes)).tolist()
    filled = [(name, count) for name, count in zip(found.classes, counts, strict=True) if count]
    if len(filled) < 2:
        raise UserError(f"{len(filled)} class folder(s) with images; a classifier needs two", where=root)
    step = max(1, len(train) // _LOOKED_AT)
    sides = [side for path in train.paths[::step] if (side := _short_side(Path(root, path)))]
    if not sides:
        raise UserError(
            f"none of {len(train.paths[::step]):,} files looked at is an image that can be read", where=root
        )
    return Survey(
        root=root,
        classes=tuple(name for name, _ in filled),
        counts=tuple(count for _, count in filled),
        given=frozenset(found.splits),
        short_side=round(statistics.median(sides)),
    )


def _short_side(file: Path) -> int | None:
    """Return an image's shorter side in pixels, from the beginning of the file; None where it is no image."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with open_image(file) as image:
                return min(image.size)
    except Exception:  # noqa: BLE001 - `prepare` says what it is
        return None
