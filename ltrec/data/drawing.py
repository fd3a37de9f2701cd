"""Drawing images by what is in them: a hash of seed and content orders them, and what belongs together stays together.

N images, U units, C classes. A unit is what no split may tear: images with the same content or of the same group. Its
key, 64 bits of a hash, is a place between 0 and 1 that depends on no other image, no name and no random generator.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from numpy.typing import NDArray

    from ltrec.artifacts import Split
    from ltrec.data.contents import Contents
    from ltrec.data.image_lists import ImageList

    Keys = NDArray[np.uint64]

_OPEN, _WHOLE = -1, -2  # of units that no split has taken, and may not take


@dataclass(frozen=True)
class Draw:
    """What decides a draw: the seed, the images' contents and, where they have any, their groups."""

    seed: int
    contents: Contents
    groups: Mapping[str, str] = field(default_factory=dict)
    """The group of an image, by its path; an image that is not in it is a group of its own."""

    def of_images(self, images: ImageList) -> Keys:
        """Return each image's key, (N,): a hash of seed and content or, where no file was opened, path."""
        return hashes(self.seed, map(self.contents.identity, images.paths))

    def of_units(self, images: ImageList) -> Keys:
        """Return the key of each image's unit, (N,): equal for images of one group, or with the same content.

        A group's key is a hash of its name, so that it stays where it is when the group grows. Groups that share a
        content are one unit, with the smallest of their keys.
        """
        contents = self.of_images(images)
        if not self.groups:
            return contents
        names = [self.groups.get(path) for path in images.paths]
        grouped = np.array([name is not None for name in names], dtype=np.bool_)
        keys = contents.copy()
        keys[grouped] = hashes(self.seed, (b"group\0" + name.encode() for name in names if name is not None))
        members = [np.unique(each, return_inverse=True)[1] for each in (keys, contents)]
        while True:
            joined = keys
            for member in members:
                lowest = np.full(member.max(initial=-1) + 1, np.iinfo(np.uint64).max, dtype=np.uint64)
                np.minimum.at(lowest, member, joined)
                joined = lowest[member]
            if np.array_equal(joined, keys):
                return keys
            keys = joined

    def ranks(self, images: ImageList) -> NDArray[np.int64]:
        """Return the place of each image in its class's draw, (N,), counted from 0; groups do not matter."""
        order = np.lexsort((self.of_images(images), images.labels))
        counts = np.bincount(images.labels)
        rank = np.empty(len(images), dtype=np.int64)
        rank[order] = np.arange(len(images)) - np.repeat(np.cumsum(counts) - counts, counts)
        return rank


def draw_key(seed: int, text: str) -> int:
    """Return 64 bits, a hash of seed and text, by which a draw is ordered."""
    return int(hashes(seed, [text.encode()])[0])


def hashes(seed: int, contents: Iterable[bytes]) -> Keys:
    """Return 64 bits of a hash of seed and content for each content, (N,)."""
    return np.frombuffer(b"".join(_digests(seed, contents)), dtype=">u8").astype(np.uint64)


def _digests(seed: int, contents: Iterable[bytes]) -> Iterator[bytes]:
    keyed = hashlib.blake2b(digest_size=8, key=str(seed).encode())
    for content in contents:
        hashed = keyed.copy()  # a third faster than beginning with the key again
        hashed.update(content)
        yield hashed.digest()


class Quota(NamedTuple):
    """How many images a class gives to a split: a share of the keys, but at least and at most so many."""

    share: float
    least: int
    most: int | None

    def __str__(self) -> str:
        if self.least == self.most:
            return f"{self.least:,}"
        bounds = f"{self.least:,} or more" if self.most is None else f"{self.least:,} to {self.most:,}"
        return f"a share of {self.share:g} ({bounds})"


def carve(
    images: ImageList, keys: Keys, quotas: Mapping[Split, Quota], *, whole: Collection[int] = ()
) -> dict[Split, ImageList]:
    """Return the images divided by the keys of their units: quotas for the splits that they name, the rest for train.

    Test takes the lowest keys and val the highest, so that neither depends on the other's size. Each class leaves an
    image for train and for the splits that follow. Classes in `whole` stay in train, with all that belongs to theirs.
    """
    units, unit_of = np.unique(keys, return_inverse=True)
    shown = _ShownClasses(unit_of, images.labels, len(units))
    split_of = np.full(len(units), _OPEN)
    for label in whole:
        split_of[shown.units_of(label)[0]] = _WHOLE
    places = units / 2.0**64
    for number, (split, quota) in enumerate(quotas.items()):
        later = [each.least for each in list(quotas.values())[number + 1 :]]
        for label in shown.from_the_rarest:
            member, sizes = shown.units_of(label)
            place = places[member]
            if split == "val":
                member, sizes, place = member[::-1], sizes[::-1], 1 - place[::-1]
            is_open = split_of[member] == _OPEN
            own = is_open & (shown.home[member] == label)
            there = int(sizes[split_of[member] == number].sum())
            taken = _taken(
                sizes[own], place[own] < quota.share, quota, there=there,
                most_images=int(sizes[is_open].sum()) - 1 - sum(later),
                most_units=int(is_open.sum()) - 1 - len(later),
            )  # fmt: skip
            split_of[member[own][taken]] = number
    of_image = split_of[unit_of]
    carved = {split: images.where(of_image == number) for number, split in enumerate(quotas)}
    return {**carved, "train": images.where(of_image < 0)}


class _ShownClasses:
    """Which classes each of U units shows, and how many images of each."""

    def __init__(self, unit_of: NDArray[np.int64], labels: NDArray[np.int64], units: int) -> None:
        pairs, self._counts = np.unique(labels * units + unit_of, return_counts=True)
        self._units = pairs % units
        of_pair = pairs // units
        counts = np.bincount(labels)
        self._ends = np.searchsorted(of_pair, np.arange(len(counts) + 1))
        present = np.flatnonzero(counts)
        self.from_the_rarest: list[int] = present[np.argsort(counts[present], kind="stable")].tolist()
        self.home = np.empty(units, dtype=np.int64)
        """The class that decides where each unit goes, (U,): the rarest that it shows."""
        for label in reversed(self.from_the_rarest):
            self.home[self.units_of(label)[0]] = label

    def units_of(self, label: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the units that show a class, in the order of their keys, and their images of it."""
        pairs = slice(self._ends[label], self._ends[label + 1])
        return self._units[pairs], self._counts[pairs]


def _taken(
    sizes: NDArray[np.int64],
    in_share: NDArray[np.bool_],
    quota: Quota,
    *,
    there: int,
    most_images: int,
    most_units: int,
) -> NDArray[np.bool_]:
    """Return which units of a class a split takes, of all that it may take in the order in which it takes them.

    Args:
        sizes: The number of images in each.
        in_share: Whether each is in the split's share; these come first.
        quota: How many images are wanted.
        there: Images of the class that the split has already, with units that other classes decide on.
        most_images: Images that may be taken.
        most_units: Units that may be taken.
    """
    in_share = in_share & (np.arange(len(sizes)) < most_units)
    shared = int(sizes[in_share].sum())
    wanted = max(shared, quota.least - there)
    if quota.most is not None:
        wanted = min(wanted, quota.most - there)
    wanted = min(wanted, most_images)
    if wanted == shared:
        return in_share
    taken, images = np.zeros(len(sizes), dtype=np.bool_), 0
    for unit, size in enumerate(sizes.tolist()):
        if images >= wanted or most_units <= 0:
            return taken
        if images + size <= wanted:
            taken[unit], images, most_units = True, images + size, most_units - 1
    # The whole units that fit end short: one more, where that is nearer or where there would be none.
    for unit in np.flatnonzero(~taken).tolist() if most_units > 0 else ():
        with_it = images + int(sizes[unit])
        if with_it <= most_images and (with_it - wanted < wanted - images or images + there == 0):
            taken[unit] = True
            break
    return taken
