"""The paths of many images in little memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, overload

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ltrec.data.image_lists import ImageList

_AT_ONCE = 1 << 16
# A folder of ours may have a name that is no UTF-8 text.
_CODING = "utf-8", "surrogateescape"


class PathList(Sequence[str]):
    """Paths as one buffer of bytes, with the place where each ends.

    A worker process shares the memory of the process that started it until it writes there. Of strings it writes the
    reference counts, and so gets a copy of every page that it reads from.
    """

    def __init__(self, paths: Iterable[str]) -> None:
        remaining, buffers, lengths = iter(paths), [], [np.zeros(1, dtype=np.int64)]
        while encoded := [path.encode(*_CODING) for path in islice(remaining, _AT_ONCE)]:
            buffers.append(b"".join(encoded))
            lengths.append(np.fromiter(map(len, encoded), dtype=np.int64, count=len(encoded)))
        self._bytes = b"".join(buffers)
        self._bounds = np.concatenate(lengths).cumsum()
        """Path i lies between bounds i and i + 1; (N + 1,)."""

    def __len__(self) -> int:
        return len(self._bounds) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        return self._bytes[self._bounds[place] : self._bounds[place + 1]].decode(*_CODING)

    def __iter__(self) -> Iterator[str]:
        start = 0
        for first in range(1, len(self._bounds), _AT_ONCE):
            for end in self._bounds[first : first + _AT_ONCE].tolist():
                yield self._bytes[start:end].decode(*_CODING)
                start = end


def compact(images: ImageList) -> ImageList:
    """Return a list that a stage keeps while worker processes read its images: its paths are a `PathList`."""
    return replace(images, paths=PathList(images.paths))
