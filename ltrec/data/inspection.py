"""Reading every image once before anything is learnt from it: can it be decoded, and what is its digest?"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ltrec.data.images.decoding import require_decodable
from ltrec.data.images.formats import TruncatedImageError, UnreadableImageError, UnsupportedFormatError
from ltrec.data.sources.collection import Skipped

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from ltrec.console import Advance

_FILES_A_TASK = 16


@dataclass(frozen=True)
class Inspected:
    """What was found in files, in the order in which they were given."""

    digests: Mapping[str, bytes]
    """SHA-256 of each file that can be used, by its path."""
    skipped: tuple[Skipped, ...]
    """The others."""
    truncated: tuple[str, ...]
    """Those that are used although their end is missing."""


def inspect(
    root: Path,
    paths: Sequence[str],
    *,
    workers: int | None,
    advance: Advance,
    keep_truncated: bool = False,
) -> Inspected:
    """Return what is in files; `keep_truncated` says whether one is used whose end is missing.

    Files are read in `workers` threads, since Pillow and hashlib let go of the interpreter lock. `advance` is called
    with the number of files done since its last call.
    """
    digests: dict[str, bytes] = {}
    skipped: list[Skipped] = []
    truncated: list[str] = []
    tasks = [paths[start : start + _FILES_A_TASK] for start in range(0, len(paths), _FILES_A_TASK)]
    pool = ThreadPoolExecutor(workers)
    try:
        results = pool.map(lambda task: [_look(root / path, keep_truncated) for path in task], tasks)
        for task, of_task in zip(tasks, results, strict=True):
            for path, (digest, problem) in zip(task, of_task, strict=True):
                if digest is not None:
                    digests[path] = digest
                    truncated += [path] if problem is not None else []
                else:
                    skipped.append(Skipped(path, str(problem), of_kind=isinstance(problem, UnsupportedFormatError)))
            advance(len(task))
    finally:
        # On Ctrl-C the tasks that have not begun are given up.
        pool.shutdown(cancel_futures=True)
    return Inspected(digests, tuple(skipped), tuple(truncated))


def _look(file: Path, keep_truncated: bool) -> tuple[bytes | None, UnreadableImageError | None]:
    """Return the digest of a file that can be used, and what is wrong with it."""
    problem = None
    try:
        try:
            require_decodable(file)
        except TruncatedImageError as error:
            if not keep_truncated:
                raise
            require_decodable(file, truncated=True)
            problem = error
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").digest(), problem
    except UnreadableImageError as error:
        return None, error
    except OSError as error:
        return None, UnreadableImageError(f"cannot be read ({error.strerror})")
