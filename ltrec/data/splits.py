"""Carving val and test from train: each class gives the same number of images, drawn by seed."""

from __future__ import annotations

import hashlib
import itertools
import math
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import AfterValidator, Field, SerializeAsAny, model_validator

from ltrec.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import Self

    from numpy.typing import NDArray

    from ltrec.artifacts import Split
    from ltrec.data.image_lists import ImageList


def _whole_or_fraction(amount: float) -> float:
    if amount < 1:
        return amount
    if amount != int(amount):
        raise ValueError("must be a whole number of images a class, or a fraction below 1")
    return int(amount)


# SerializeAsAny: a whole number where the schema says float would make the serializer of a union warn.
Amount = Annotated[SerializeAsAny[float], Field(gt=0), AfterValidator(_whole_or_fraction)]


class SplitSettings(Settings):
    """What is carved from train where the data has no split of its own; every class gives the same number."""

    val: Amount | Literal["test"] = 0.1
    """Validation images of each class, or below 1: that fraction of the smallest class, but at least one image. test:
    val lists the test images, as in the literature on data without a val; whatever is chosen is then chosen on test."""
    test: Amount = 0.2
    """Test images of each class, or a fraction, as for `val`."""
    small_classes: Literal["error", "drop"] = "error"
    """What to do about classes with too few images: stop, or leave them out and list them in stats.json."""

    @model_validator(mode="after")
    def _train_remains(self) -> Self:
        if self.val != "test" and self.val < 1 and self.test < 1 and self.val + self.test >= 1:
            raise ValueError(f"val ({self.val}) and test ({self.test}) together must leave something for train")
        return self

    @property
    def carved(self) -> tuple[Split, ...]:
        """Return the splits that are carved from train where the data does not have them."""
        return ("test",) if self.val == "test" else ("val", "test")

    def per_class(self, smallest: int, missing: Sequence[Split]) -> dict[Split, int]:
        """Return how many images each class gives to each missing split, if the smallest class has `smallest`."""
        # test comes first, so that another val leaves the test images as they are.
        amounts: dict[Split, float] = {"test": self.test}
        if self.val != "test":
            amounts["val"] = self.val
        return {
            split: int(amount) if amount >= 1 else max(1, math.floor(amount * smallest + 1e-9))
            for split, amount in amounts.items()
            if split in missing
        }

    def suffices(self, count: int, missing: Sequence[Split]) -> bool:
        """Return whether a class of `count` images can give its share and keep one for train."""
        return sum(self.per_class(count, missing).values()) < count

    def needed(self, missing: Sequence[Split]) -> int:
        """Return the size of the smallest class that can be split."""
        return next(count for count in itertools.count(1) if self.suffices(count, missing))


def carve(images: ImageList, per_class: Mapping[Split, int], seed: int) -> dict[Split, ImageList]:
    """Return the images divided: `per_class` of each class for each split that it names, the rest for train."""
    rank = draw_ranks(images, seed)
    splits: dict[Split, ImageList] = {}
    start = 0
    for split, number in per_class.items():
        splits[split] = images.where((rank >= start) & (rank < start + number))
        start += number
    return splits | {"train": images.where(rank >= start)}


def draw_ranks(images: ImageList, seed: int) -> NDArray[np.int64]:
    """Return the place of each image in its class's draw, (N,), counted from 0.

    The draw orders images by a hash of seed and path. It depends on neither the file system nor the version of a
    random generator, and a new image or another class moves few of the others.
    """
    keys = np.frombuffer(b"".join(_draw_bytes(seed, images.paths)), dtype=">u8").astype(np.uint64)
    order = np.lexsort((keys, images.labels))
    counts = np.bincount(images.labels)
    rank = np.empty(len(images), dtype=np.int64)
    rank[order] = np.arange(len(images)) - np.repeat(np.cumsum(counts) - counts, counts)
    return rank


def draw_key(seed: int, text: str) -> int:
    """Return 64 bits, a hash of seed and text, by which a draw is ordered."""
    return int.from_bytes(next(_draw_bytes(seed, [text])), "big")


def _draw_bytes(seed: int, texts: Iterable[str]) -> Iterator[bytes]:
    """Yield the `draw_key` of each text as eight bytes, big-endian."""
    keyed = hashlib.blake2b(digest_size=8, key=str(seed).encode())
    for text in texts:
        hashed = keyed.copy()  # a third faster than beginning with the key again
        hashed.update(text.encode())
        yield hashed.digest()
