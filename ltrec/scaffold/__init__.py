"""A new project: its files, Git and DVC, and parameters that fit the user's own images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ltrec import console
from ltrec.config import params, recipes
from ltrec.scaffold import git_and_dvc, own_images, project_files

if TYPE_CHECKING:
    from collections.abc import Mapping


def begin(recipe: str, options: Mapping[str, str], file: Path) -> None:
    """Write parameters, and around them what a project needs: the pipeline, Git and DVC.

    Where a `dvc.yaml` of ltrec's lies already, as in a checkout, or the parameters go elsewhere, nothing else is done.

    Raises:
        UserError: The file exists, the recipe does not or lacks an option, there are no images to learn from, or Git
            or DVC cannot begin here.
    """
    project_files.require_free(file)
    own = recipe == recipes.OWN_IMAGES
    text = own_images.chosen(options) if own else recipes.find(recipe).text(options)
    checked = params.parse(text, "init")
    if file != project_files.PARAMS or (project_files.PIPELINE.exists() and git_and_dvc.begun()):
        _write(file, text)
        console.say(f"init: {file} written; `ltrec params check` checks it")
        return
    root = Path(checked.prepare.source.root)
    written = project_files.write(project_files.files(root))  # before `dvc init`, which would write a .dvcignore
    git_and_dvc.begin()
    project_files.write_templates()
    if root.is_dir():
        git_and_dvc.link_cache(root)
    _write(file, text)  # last, so that what failed before may be tried again
    named = ", ".join(map(str, (file, *written)))
    first = "" if root.is_dir() else f" get the data, as the first lines of {file} say, then"
    console.say(f"init: {named} and {project_files.PLOTS}/ written; now{first} `dvc repro`, or `ltrec run` without DVC")


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8", newline="\n")
