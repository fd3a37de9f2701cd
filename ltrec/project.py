"""Where the project is, what Git says of it, and locks between its processes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ltrec.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator


def root() -> Path:
    """The project's folder.

    `DVC_ROOT` where DVC sets it (a temporary or queued experiment runs elsewhere), else the nearest
    folder upwards that holds `.dvc/` or `params.yaml`, else the current one.
    """
    if told := os.environ.get("DVC_ROOT"):
        return Path(told).resolve()
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / ".dvc").is_dir() or (folder / "params.yaml").is_file():
            return folder
    return here


def state_dir() -> Path:
    """Where resume state and unsent tracking records lie: `.ltrec/` in the project's root."""
    return root() / ".ltrec"


@dataclass(frozen=True)
class GitState:
    """The commit that is checked out, and whether files differ from it."""

    commit: str | None
    dirty: bool | None


def git_state() -> GitState:
    """None for both outside a repository or without Git."""
    commit = _git("rev-parse", "HEAD")
    changes = _git("status", "--porcelain", "--untracked-files=no")
    return GitState(commit or None, None if changes is None else bool(changes))


@contextlib.contextmanager
def lock(path: Path, *, patience: float = 15.0) -> Iterator[None]:
    """Hold a lock that only one process has at a time; the system frees it however the process ends.

    Args:
        path: The lock file.
        patience: Seconds to wait for another holder, such as one that is just being killed.

    Raises:
        UserError: another process holds it still.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        end = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    file.seek(0)
                    holder = file.read().strip() or "unknown"
                    raise UserError(
                        f"held by process {holder}, which works on the same thing; wait for it or end it",
                        where=str(path),
                    ) from None
                time.sleep(0.05)
        file.seek(0)
        file.truncate()
        file.write(str(os.getpid()))
        file.flush()
        yield


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(  # noqa: S603 - fixed arguments
            ["git", *arguments],  # noqa: S607 - the user's own git
            cwd=root(), capture_output=True, text=True, check=False, timeout=30,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
