"""Digests of lists and images in two splits at once, by the images' bytes or, where no file was opened, their paths."""

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
    """What tells images apart."""

    digests: Mapping[str, bytes] | None
    """SHA-256 of each readable file's bytes by its path; None: no file was opened."""

    def identity(self, path: str) -> bytes:
        """Return what tells an image from others: the digest of its bytes or, where no file was opened, its path."""
        return path.encode() if self.digests is None else self.digests[path]

    def list_digest(self, images: ImageList) -> str:
        """Return SHA-256 over the content and the label of each image of a list, in its order: names do not matter.

        Where no file was opened, it is over the list as it is, so that paths stand for contents.
        """
        if self.digests is None:
            return self.digest([images])
        sha256 = hashlib.sha256()
        for path, label in zip(images.paths, images.labels.tolist(), strict=True):
            sha256.update(self.digests[path] + b"%d\n" % label)
        return sha256.hexdigest()

    def digest(self, lists: Iterable[ImageList]) -> str:
        """Return SHA-256 over the paths and contents of the images in some lists, whatever their order.

        Where no file was opened, it is over paths and labels as the lists have them.
        """
        sha256 = hashlib.sha256()
        if self.digests is None:
            for images in lists:
                sha256.update(list_text(images).encode() + b"\0")
        else:
            for path in sorted({path for images in lists for path in images.paths}):
                sha256.update(path.encode() + b"\0" + self.digests[path])
        return sha256.hexdigest()

    def leaks(self, splits: Mapping[Split, ImageList]) -> list[str]:
        """Return each content that lies in more than one split, with two of its places."""
        digests = self.digests

        def key(path: str) -> bytes | str:
            return path if digests is None else digests[path]

        # The last splits are the small ones: the first, which may have 10^7 images, is looked up in what they hold.
        first, *others = splits
        places: dict[bytes | str, tuple[Split, str]] = {}
        among_others: dict[bytes | str, str] = {}
        for split in others:
            for path in splits[split].paths:
                earlier_split, earlier = places.setdefault(key(path), (split, path))
                if earlier_split != split:
                    among_others.setdefault(key(path), f"{earlier} in {earlier_split} = {path} in {split}")
        with_first: dict[bytes | str, str] = {}
        for path in splits[first].paths:
            if (place := places.get(key(path))) is not None:
                with_first.setdefault(key(path), f"{path} in {first} = {place[1]} in {place[0]}")
        return list((among_others | with_first).values())
