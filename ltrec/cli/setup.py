"""What all command lines share: how they look, and the parameters that a command reads."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import typer

    from ltrec.config.params import Params

PARAMS = Path("params.yaml")

LOOKS: dict[str, Any] = {
    "no_args_is_help": True,
    "rich_markup_mode": None,
    "add_completion": False,
    "context_settings": {"help_option_names": ["-h", "--help"], "max_content_width": 100},
}


def enter_project(context: typer.Context) -> Path:
    """Go to the project's folder, where a command is given in one of its sub-folders.

    Returns:
        The folder that paths on the command line are relative to: an empty path where it is the current one still.
    """
    from ltrec import console, project

    here = Path.cwd()
    # DVC knows where it wants a stage to run.
    if context.find_root().obj != PARAMS or PARAMS.is_file() or project.DVC_ROOT in os.environ:
        return Path()
    root = project.root()
    if not (root / PARAMS).is_file():
        return Path()
    os.chdir(root)
    console.detail(f"in {root}")
    return here


def load_params(context: typer.Context) -> Params:
    """Return the parameters in the file that `--params` names; the project's are found from its sub-folders, too."""
    from ltrec.config.params import load

    enter_project(context)
    path = context.find_root().obj
    assert isinstance(path, Path)
    return load(path)
