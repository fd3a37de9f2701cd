"""The project: its folder, its state in Git, and locks between processes."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ltrec.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

DVC_ROOT = "DVC_ROOT"
"""The environment variable in which DVC tells a stage where the project is."""


def root() -> Path:
    """Return the project's folder.

    It is `DVC_ROOT` where DVC sets that (a temporary or queued experiment runs elsewhere), else the nearest folder
    upwards that holds `.dvc/` or `params.yaml`, else the current one.
    """
    if from_dvc := os.environ.get(DVC_ROOT):
        return Path(from_dvc).resolve()
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / ".dvc").is_dir() or (folder / "params.yaml").is_file():
            return folder
    return here


def state_dir() -> Path:
    """Return the folder of resume states, unsent tracking records and the last splits: `.ltrec/` in the project."""
    return root() / ".ltrec"


@dataclass(frozen=True)
class GitState:
    """The commit that is checked out, and whether files differ from it."""

    commit: str | None
    dirty: bool | None


def git_state() -> GitState:
    """Return the current folder's state, as the process first saw it; both are None without a repository or Git."""
    return _git_state(Path.cwd())


def committed(file: Path) -> str | None:
    """Return the text that a file has in the commit that is checked out; None where it has none, or there is no Git."""
    return git(Path.cwd(), "show", f"HEAD:./{file.as_posix()}")


@contextlib.contextmanager
def lock(path: Path, *, patience: float = 15.0) -> Iterator[None]:
    """Hold a lock file that only one process has at a time; the system frees it however the process ends.

    Another holder, such as one that is just being killed, is waited for `patience` seconds.

    Raises:
        UserError: another process still holds the lock.
    """
    deadline = time.monotonic() + patience
    while (file := _locked(path)) is None:
        if time.monotonic() > deadline:
            raise UserError(
                f"held by process {_holder(path)}, which works on the same thing; wait for it or end it",
                where=str(path),
            )
        time.sleep(0.05)
    with file:
        file.truncate(0)
        file.write(str(os.getpid()).encode())
        yield


def _locked(path: Path) -> BinaryIO | None:
    """Return the locked file, or None if somebody has the lock or has just removed it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        file = path.open("ab", buffering=0)
    except FileNotFoundError:  # the folder was removed in between
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # A holder may remove its lock file; a lock on what is no longer there locks nothing.
        if os.path.samestat(os.fstat(file.fileno()), path.stat()):
            return file
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        file.close()
        raise
    file.close()
    return None


def _holder(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text(encoding="utf-8").strip() or "unknown"
    return "unknown"


@functools.cache
def _git_state(folder: Path) -> GitState:
    commit = git(folder, "rev-parse", "HEAD")
    changes = git(folder, "status", "--porcelain", "--untracked-files=no")
    return GitState(commit or None, None if changes is None else bool(changes))


def git(folder: Path, *arguments: str) -> str | None:
    """Return what Git answers in a folder; None where there is no Git or no repository, or where it refuses."""
    try:
        result = subprocess.run(  # noqa: S603 - fixed arguments
            ["git", *arguments],  # noqa: S607 - the user's own git
            cwd=folder, capture_output=True, text=True, check=False, timeout=30,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() if result.returncode == 0 else None
