"""Git and DVC of a new project: both are begun where they are not, and DVC is told not to double the images."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from ltrec import console, project
from ltrec.errors import UserError, one_line
from ltrec.scaffold.project_files import PAGE

_DVC = Path(".dvc")
_FICLONE = 0x40049409  # Linux: a copy that shares its blocks with the original
_LINKS = {
    "reflink": "copies that share their blocks",
    "hardlink": "hard links, which are read-only",
    "symlink": "symbolic links, which are read-only",
}
_SETTINGS = {"core.analytics": "false", "core.autostage": "false", "plots.html_template": f"plots/{PAGE}"}


def begun() -> bool:
    """Return whether DVC is initialised in the current folder."""
    return (_DVC / "config").is_file()


def begin() -> None:
    """Initialise Git and DVC in the current folder where they are not, and say so.

    Raises:
        UserError: Git or DVC refuse; what they say is in the message.
    """
    folder = project.git(Path.cwd(), "rev-parse", "--show-toplevel")
    if folder is None and shutil.which("git"):
        _run("git", "init", "--quiet")
        folder = str(Path.cwd())
        console.say("init: a Git repository begun here; commit once before `dvc exp`")
    if begun():
        return
    if folder is None:
        console.say("init: there is no Git: DVC does without, and without `dvc exp` and comparisons of commits")
        _dvc("init", "--no-scm")
    else:
        here = Path(folder).resolve() == Path.cwd().resolve()
        _dvc("init", *([] if here else ["--subdir"]))
    for name, value in _SETTINGS.items():
        _dvc("config", "--quiet", name, value)


def link_cache(data: Path) -> None:
    """Let DVC's cache share the images with their folder by what the file system can do, unless that is set already."""
    if _dvc("config", "cache.type", code=None).strip():
        return
    kinds = [kind for kind in _LINKS if _can(kind, data)]
    if kinds:
        # Of this machine, not of the project: another's file system may do something else.
        _dvc("config", "--quiet", "--local", "cache.type", ",".join(kinds))
        console.say(f"init: what is put under DVC's care is not doubled: {_LINKS[kinds[0]]} (cache.type {kinds[0]})")


def _can(kind: str, data: Path) -> bool:
    """Return whether a file of the images' folder can be in DVC's cache by a kind of link."""
    if kind != "symlink" and data.stat().st_dev != _DVC.stat().st_dev:
        return False
    with tempfile.TemporaryDirectory(dir=_DVC) as scratch, contextlib.suppress(OSError):
        original, other = Path(scratch, "original"), Path(scratch, "other")
        original.write_bytes(b"x" * 4096)
        if kind == "hardlink":
            os.link(original, other)
        elif kind == "symlink":
            other.symlink_to(original)
        else:
            with original.open("rb") as source, other.open("wb") as target:
                fcntl.ioctl(target.fileno(), _FICLONE, source.fileno())
        return True
    return False


def _dvc(*arguments: str, code: int | None = 0) -> str:
    return _run(sys.executable, "-m", "dvc", *arguments, code=code)


def _run(*command: str, code: int | None = 0) -> str:
    """Return what a command writes.

    Raises:
        UserError: Its exit code is another than the one wanted, if one is.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own words
    if code is not None and done.returncode != code:
        said = one_line(Exception(done.stderr or done.stdout))
        raise UserError(f"`{' '.join(command).replace(f'{sys.executable} -m ', '')}` failed: {said}", where="init")
    return done.stdout
