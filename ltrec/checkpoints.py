"""Resume state: the last finished epoch of a training under way, outside the pipeline's outputs."""

from __future__ import annotations

import contextlib
import shutil
from typing import TYPE_CHECKING, Any, Self

from ltrec import __version__, artifacts, console, project
from ltrec.errors import one_line

if TYPE_CHECKING:
    from types import TracebackType


class ResumeFolder:
    """One training's checkpoint in the project's state folder; as a context manager, held by one process.

    Args:
        stage: The stage that trains.
        key: Digest of everything that decides the training's result: another key is another training.
    """

    def __init__(self, stage: str, key: str) -> None:
        self.folder = project.state_dir() / "resume" / stage / key[:16]
        self._file = self.folder / "checkpoint.pt"
        self._held = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self._held.enter_context(project.lock(self.folder.with_suffix(".lock")))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.close()

    def load(self) -> dict[str, Any] | None:
        """The last saved state, or None; with a warning if it is damaged."""
        import torch

        if not self._file.exists():
            return None
        try:
            state: dict[str, Any] = torch.load(self._file, map_location="cpu", weights_only=True)
            version = state.pop("version")
        except Exception as error:  # noqa: BLE001 - out of a damaged pickle comes almost anything
            console.warn(f"{self._file}: damaged checkpoint ({one_line(error, 80)}); training starts anew")
            return None
        if version != __version__:
            console.warn(f"{self._file}: written by another version of ltrec; training goes on from it all the same")
        return state

    def save(self, state: dict[str, Any]) -> None:
        """Put a state in place of the last one, at once or not at all."""
        import torch

        with artifacts.replacing(self._file) as temporary:
            torch.save({**state, "version": __version__}, temporary)

    def discard(self) -> None:
        """The training is finished and its artifacts are in place."""
        shutil.rmtree(self.folder, ignore_errors=True)
