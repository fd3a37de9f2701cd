"""A seed's folder: parameters, artifacts, and the state of `ltrec run`, apart from the project's own."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltrec import artifacts, project
from ltrec.artifacts import Layout
from ltrec.config import params as params_module

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ltrec.config.params import Params

_PARAMS = "params.yaml"
# Parameters that name files or folders relative to the project; all others are relative to the images' folder.
_PATHS = (("prepare", "source", "root"), ("represent", "backbone", "weights"))


@dataclass(frozen=True)
class SeedFolder:
    """Where the stages of one seed run."""

    path: Path
    params: Params
    """The project's parameters, with this seed."""

    @property
    def seed(self) -> int:
        return self.params.seed

    @property
    def layout(self) -> Layout:
        return Layout(self.path / Layout().root)

    @contextlib.contextmanager
    def entered(self) -> Iterator[tuple[Params, Path]]:
        """Yield the parameters and their file, inside of the folder, which is a project of its own for the block.

        What belongs to the project as a whole is told from outside: the stages say nothing to MLflow, so that no
        seed's champion is registered in place of the project's.
        """
        content = self.params.model_dump(mode="json")
        content["tracking"]["enabled"] = False
        for names in _PATHS:
            _lead_back(content, names, self.path)
        artifacts.write_json(self.path / _PARAMS, content)  # which is YAML, too
        self._share_cache()
        from_dvc = os.environ.pop(project.DVC_ROOT, None)
        try:
            with contextlib.chdir(self.path):
                yield params_module.load(Path(_PARAMS)), Path(_PARAMS)
        finally:
            if from_dvc is not None:
                os.environ[project.DVC_ROOT] = from_dvc

    def evaluation(self) -> dict[str, Any]:
        """Return what `evaluate` wrote of all variants."""
        content: dict[str, Any] = artifacts.read_json(self.layout.evaluation_metrics)
        return content

    def dataset(self) -> str:
        """Return the digest of the images that this seed drew."""
        return str(artifacts.read_json(self.layout.stats)["digest"])

    def _share_cache(self) -> None:
        """Let all seeds take smaller copies of images from the project's own."""
        shared, link = project.state_dir() / "cache", self.path / ".ltrec" / "cache"
        shared.mkdir(parents=True, exist_ok=True)
        link.parent.mkdir(parents=True, exist_ok=True)
        if link.is_symlink() and not link.exists():  # the project was moved
            link.unlink()
        if not link.exists():
            link.symlink_to(shared)


def _lead_back(content: dict[str, Any], names: tuple[str, ...], folder: Path) -> None:
    """Rewrite a path that is relative to the project as one that leads there from `folder`, however both are moved."""
    *sections, last = names
    for name in sections:
        content = content[name]
    value = content.get(last)
    # The name of published weights is no path.
    if value is not None and not Path(value).is_absolute() and (last == "root" or Path(value).is_file()):
        content[last] = os.path.relpath(Path(value).absolute(), folder)
