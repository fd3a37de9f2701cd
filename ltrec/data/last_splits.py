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


@dataclass(frozen=True)
class RememberedSplits:
    """The contents of each split, as 64 bits of a hash each, (N,)."""

    contents: dict[Split, Keys]

    @classmethod
    def of(cls, splits: Mapping[Split, ImageList], contents: Contents) -> Self:
        """Return what is to be remembered of some splits."""
        return cls(
            {
                split: np.unique(hashes(0, map(contents.identity, images.paths)))  # the same for every seed
                for split, images in splits.items()
            }
        )

    @classmethod
    def read(cls, file: Path) -> Self | None:
        """Return what a file holds; None where there is none, or one that is damaged."""
        try:
            with file.open("rb") as opened, np.load(opened, allow_pickle=False) as arrays:
                return cls({split: arrays[split].astype(np.uint64) for split in SPLITS})
        except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile):
            return None

    def write(self, file: Path) -> None:
        with artifacts.replacing(file) as temporary, temporary.open("wb") as opened:
            arrays: dict[str, Any] = {split: self.contents[split] for split in SPLITS}
            np.savez(opened, **arrays)

    def changes(self, now: RememberedSplits) -> list[str]:
        """Return how many images left val and test since, and which splits they are in; nothing of other data."""
        if not any(np.isin(self.contents[split], now.contents[other]).any() for split in SPLITS for other in SPLITS):
            return []
        found = []
        for split in ("test", "val"):
            before = self.contents[split]
            left = np.setdiff1d(before, now.contents[split], assume_unique=True)
            into = {other: np.isin(left, now.contents[other]).sum() for other in SPLITS}
            moved = "".join(f", {number:,} of them into {other}" for other, number in into.items() if number)
            if len(left):
                found.append(f"{len(left):,} of {len(before):,} {split} images left{moved}")
        return found


def warn_changed(file: Path, now: RememberedSplits) -> None:
    """Say in one line which images left val and test since the file was written."""
    before = RememberedSplits.read(file)
    if before is not None and (changes := before.changes(now)):
        console.warn(
            f"prepare: since the last prepare {'; '.join(changes)}: figures of before and after stand on different"
            " images"
        )
