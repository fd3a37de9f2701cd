"""What tells images apart: their bytes or, where no file was opened, their paths."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ltrec.data.image_lists import list_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ltrec.artifacts import Split
    from ltrec.data.image_lists import ImageList


@dataclass(frozen=True)
class Contents:
    """What is in the images."""

    digests: Mapping[str, bytes] | None
    """SHA-256 of each readable file by its path; None: no file was opened."""

    def digest(self, lists: Iterable[ImageList]) -> str:
        """SHA-256 over the paths and contents of the images in some lists, whatever their order.

        Where no file was opened, over paths and labels as the lists have them.
        """
        whole = hashlib.sha256()
        if self.digests is None:
            for images in lists:
                whole.update(list_text(images).encode() + b"\0")
            return whole.hexdigest()
        for path in sorted({path for images in lists for path in images.paths}):
            whole.update(path.encode() + b"\0" + self.digests[path])
        return whole.hexdigest()

    def leaks(self, splits: Mapping[Split, ImageList]) -> list[str]:
        """Each content that lies in more than one split, with two of its places."""
        digests = self.digests

        def key(path: str) -> bytes | str:
            return path if digests is None else digests[path]

        # The last splits are the small ones: the first, which may have 10^7 images, is looked up in what they hold.
        first, *others = splits
        held: dict[bytes | str, tuple[Split, str]] = {}
        found: dict[bytes | str, str] = {}
        for split in others:
            for path in splits[split].paths:
                earlier_split, earlier = held.setdefault(key(path), (split, path))
                if earlier_split != split:
                    found.setdefault(key(path), f"{earlier} in {earlier_split} = {path} in {split}")
        in_first: dict[bytes | str, str] = {}
        for path in splits[first].paths:
            if (place := held.get(key(path))) is not None:
                in_first.setdefault(key(path), f"{path} in {first} = {place[1]} in {place[0]}")
        return list((found | in_first).values())
