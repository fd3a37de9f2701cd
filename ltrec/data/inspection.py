"""Reading every image once before anything is learnt from it: can it be decoded, and what is its digest?"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from ltrec.data.images.decoding import UnreadableImageError, decode_rgb
from ltrec.data.sources.collection import Skipped

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ltrec.console import Advance

_FILES_A_TASK = 16


def inspect(
    root: Path, paths: Sequence[str], *, workers: int | None, advance: Advance
) -> tuple[dict[str, bytes], tuple[Skipped, ...]]:
    """Return SHA-256 of each file that can be used, and the others with the reason, both in the order of `paths`.

    Files are read in `workers` threads, since Pillow and hashlib let go of the interpreter lock. `advance` is called
    with the number of files done since its last call.
    """
    digests: dict[str, bytes] = {}
    skipped: list[Skipped] = []
    tasks = [paths[start : start + _FILES_A_TASK] for start in range(0, len(paths), _FILES_A_TASK)]
    pool = ThreadPoolExecutor(workers)
    try:
        results = pool.map(lambda task: [_look(root / path) for path in task], tasks)
        for task, of_task in zip(tasks, results, strict=True):
            for path, result in zip(task, of_task, strict=True):
                if isinstance(result, bytes):
                    digests[path] = result
                else:
                    skipped.append(Skipped(path, result))
            advance(len(task))
    finally:
        # On Ctrl-C the tasks that have not begun are given up.
        pool.shutdown(cancel_futures=True)
    return digests, tuple(skipped)


def _look(file: Path) -> bytes | str:
    """Return the file's digest, or the reason why it cannot be used."""
    try:
        decode_rgb(file)
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").digest()
    except UnreadableImageError as error:
        return str(error)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
