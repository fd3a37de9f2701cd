"""Resume state: the last finished epoch of a training, kept outside the pipeline's outputs until they are safe."""

from __future__ import annotations

import contextlib
import io
import shutil
import time
from typing import TYPE_CHECKING, Any, Self

import torch

from ltrec import artifacts, console, project
from ltrec.errors import UserError, one_line

if TYPE_CHECKING:
    from pathlib import Path

_KEPT_SECONDS = 30 * 24 * 3600.0


class ResumeFolder:
    """One training's checkpoint in the project's state folder; as a context manager it locks out other processes.

    Args:
        stage: The stage that trains.
        key: The digest of everything that decides the training's result: another key is another training.
        patience: Seconds to wait for another process that holds the lock.
    """

    def __init__(self, stage: str, key: str, *, patience: float = 15.0) -> None:
        self.folder = _folder(stage) / key[:16]
        self._file, self._result = self.folder / "checkpoint.pt", self.folder / "result"
        # Beside the folder, which may be discarded while the lock is held.
        self._lock_file = self.folder.with_suffix(".lock")
        self._patience = patience
        self._held = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self._held.enter_context(project.lock(self._lock_file, patience=self._patience))
        return self

    def __exit__(self, *_: object) -> None:
        with self._held:
            self._lock_file.unlink(missing_ok=True)

    def load(self) -> dict[str, Any] | None:
        """Return the last saved state; None where there is none or, after a warning, where it is damaged."""
        if not self._file.exists():
            return None
        try:
            return dict(torch.load(self._file, map_location="cpu", weights_only=True))
        except Exception as error:  # noqa: BLE001 - out of a damaged pickle comes almost anything
            console.warn(f"{self._file}: damaged checkpoint ({one_line(error, 80)}); training starts anew")
            return None

    def save(self, state: dict[str, Any]) -> None:
        """Replace the last state by this one, as a whole or not at all."""
        content = io.BytesIO()  # torch's own errors would hide that a disk is full
        torch.save(state, content)
        with artifacts.replacing(self._file) as temporary:
            temporary.write_bytes(content.getbuffer())

    def finish(self, result: str) -> None:
        """Note that the training is over, and the digest of what it wrote; the state stays until `sweep` removes it."""
        artifacts.write_text(self._result, result)

    def result(self) -> str | None:
        """Return the digest that `finish` noted; None while the training is not over."""
        return self._result.read_text(encoding="utf-8") if self._result.exists() else None

    def abandoned(self) -> bool:
        """Return whether there is no checkpoint, or only one that is older than 30 days."""
        return not self._file.exists() or time.time() - self._file.stat().st_mtime > _KEPT_SECONDS

    def discard(self) -> None:
        """Delete the state."""
        shutil.rmtree(self.folder, ignore_errors=True)


def sweep(stage: str, *, taken: str | None = None) -> None:
    """Discard a stage's abandoned states, and those with the result `taken`, which is safe now; held ones stay."""
    for key in {path.stem for path in _folder(stage).glob("*")}:
        with contextlib.suppress(UserError, OSError), ResumeFolder(stage, key, patience=0) as state:
            if state.abandoned() or (taken is not None and state.result() == taken):
                state.discard()


def _folder(stage: str) -> Path:
    return project.state_dir() / "resume" / stage
