"""Reading every file once before anything is learnt from it: can it be decoded, and what are its bytes?"""

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
    """Decode and digest files in threads (Pillow and hashlib let go of the interpreter lock).

    Args:
        root: The folder that the paths are relative to.
        paths: The files.
        workers: Threads; None: somewhat more than cores.
        advance: Told of every few files done.

    Returns:
        SHA-256 of each file that can be used, and the others with the reason, both in the order of `paths`.
    """
    digests: dict[str, bytes] = {}
    skipped: list[Skipped] = []
    tasks = [paths[start : start + _FILES_A_TASK] for start in range(0, len(paths), _FILES_A_TASK)]
    pool = ThreadPoolExecutor(workers)
    try:
        done = pool.map(lambda task: [_look(root / path) for path in task], tasks)
        for task, outcomes in zip(tasks, done, strict=True):
            for path, outcome in zip(task, outcomes, strict=True):
                if isinstance(outcome, bytes):
                    digests[path] = outcome
                else:
                    skipped.append(Skipped(path, outcome))
            advance(len(task))
    finally:
        # On Ctrl-C what has not begun is not begun any more.
        pool.shutdown(cancel_futures=True)
    return digests, tuple(skipped)


def _look(file: Path) -> bytes | str:
    """The digest, or the reason why the file cannot be used."""
    try:
        decode_rgb(file)
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").digest()
    except UnreadableImageError as error:
        return str(error)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
