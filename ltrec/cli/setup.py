"""What all command lines share: how they look, and the parameters that a command reads."""

from __future__ import annotations

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


def load_params(context: typer.Context) -> Params:
    """Return the parameters in the file that `--params` names."""
    from ltrec.config.params import load

    path = context.find_root().obj
    assert isinstance(path, Path)
    return load(path)
