"""What the last `prepare` put into each split: remembered to say what has changed since, never to decide anything."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ltrec import artifacts, console
from ltrec.artifacts import SPLITS
from ltrec.data.drawing import hashes

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Self

    from ltrec.artifacts import Split
    from ltrec.data.contents import Contents
    from ltrec.data.drawing import Keys
    from ltrec.data.image_lists import ImageList


_REMEMBERED: tuple[Split, ...] = ("test", "val")


@dataclass(frozen=True)
class RememberedSplits:
    """The contents of val and test, as 64 bits of a hash each, (N,)."""

    contents: dict[Split, Keys]

    @classmethod
    def of(cls, splits: Mapping[Split, ImageList], contents: Contents) -> Self:
        """Return what is to be remembered of some splits."""
        return cls({split: _keys(splits[split], contents) for split in _REMEMBERED})

    @classmethod
    def read(cls, file: Path) -> Self | None:
        """Return what a file holds; None where there is none, or one that is damaged."""
        try:
            with file.open("rb") as opened, np.load(opened, allow_pickle=False) as arrays:
                return cls({split: arrays[split].astype(np.uint64) for split in _REMEMBERED})
        except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile):
            return None

    def write(self, file: Path) -> None:
        with artifacts.replacing(file) as temporary, temporary.open("wb") as opened:
            arrays: dict[str, Any] = {split: self.contents[split] for split in _REMEMBERED}
            np.savez(opened, **arrays)

    def changes(self, splits: Mapping[Split, ImageList], contents: Contents) -> list[str]:
        """Return how many images left val and test, and which splits they are in now; nothing of other data."""
        now = RememberedSplits.of(splits, contents).contents
        left = {split: np.setdiff1d(self.contents[split], now[split], assume_unique=True) for split in _REMEMBERED}
        if not any(map(len, left.values())):
            return []
        # Of train, which may have 10^7 images, no key is needed before.
        now["train"] = _keys(splits["train"], contents)
        if not any(np.isin(before, keys).any() for before in self.contents.values() for keys in now.values()):
            return []
        return [
            f"{len(gone):,} of {len(self.contents[split]):,} {split} images left" + _moved(gone, now)
            for split, gone in left.items()
            if len(gone)
        ]


def _keys(images: ImageList, contents: Contents) -> Keys:
    """Return the different contents of a list, as hashes that are the same for every seed."""
    return np.unique(hashes(0, map(contents.identity, images.paths)))


def _moved(gone: Keys, now: Mapping[Split, Keys]) -> str:
    """Return which splits images are in that have left another, as a message's end."""
    into = {split: int(np.isin(gone, now[split]).sum()) for split in SPLITS}
    return "".join(f", {number:,} of them into {split}" for split, number in into.items() if number)


def warn_changed(file: Path, splits: Mapping[Split, ImageList], contents: Contents) -> None:
    """Say in one line which images left val and test since the file was written."""
    before = RememberedSplits.read(file)
    if before is not None and (changes := before.changes(splits, contents)):
        console.warn(
            f"prepare: since the last prepare {'; '.join(changes)}: figures of before and after stand on different"
            " images"
        )
