"""The memory that decoding takes: 2 GiB for an image, or it is refused, and 4 GiB for all threads of a process."""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING

from ltrec.data.images.formats import UnreadableImageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from PIL import Image

# Bytes that Pillow needs for a pixel while it decodes, rounded up from measurements; they are many where a library
# gives the whole image before Pillow copies it. 12 for each of the 179 million pixels that Pillow takes are 2 GiB.
_BYTES_A_PIXEL = {"WEBP": 20, "AVIF": 16, "JPEG2000": 24, "HEIF": 16}
_BYTES_OF_OTHERS = 12
_MOST_BYTES = 2 << 30  # of one image
_MOST_AT_ONCE = 4 << 30  # of all threads of a process


class _Memory:
    """The bytes that decoding threads may still take; who wants more waits for others to be done."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._free = _MOST_AT_ONCE

    @contextlib.contextmanager
    def take(self, amount: int) -> Iterator[None]:
        with self._condition:
            self._condition.wait_for(lambda: self._free >= amount)
            self._free -= amount
        try:
            yield
        finally:
            with self._condition:
                self._free += amount
                self._condition.notify_all()


_memory = _Memory()


def _renew_memory() -> None:
    """Begin anew in a worker process: threads that held some of the memory stayed behind in its parent."""
    global _memory  # noqa: PLW0603 - one for a process
    _memory = _Memory()


os.register_at_fork(after_in_child=_renew_memory)


def memory_for(opened: Image.Image) -> contextlib.AbstractContextManager[None]:
    """Return what holds the memory for decoding an image.

    Raises:
        UnreadableImageError: it would take too much.
    """
    pixels, each = opened.width * opened.height, _BYTES_A_PIXEL.get(opened.format or "", _BYTES_OF_OTHERS)
    if pixels * each > _MOST_BYTES:
        raise UnreadableImageError(
            f"would take {pixels * each / 1e9:.1f} GB to decode ({pixels:,} pixels of {each} bytes each);"
            f" allowed: {_MOST_BYTES / 1e9:.1f} GB a thread"
        )
    return _memory.take(pixels * each)
