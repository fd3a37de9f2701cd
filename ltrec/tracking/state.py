"""Which pipeline state this is, and what is known about where it comes from."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltrec import __version__, artifacts, project

if TYPE_CHECKING:
    from ltrec.config.params import Params

# What does not decide the comparison is no part of the state.
_INDIFFERENT: dict[str, Any] = {
    "device": True,
    "tracking": True,
    "export": True,
    "represent": {"workers"},
    "featurize": {"workers", "batch_size"},
    "evaluate": {"plots"},
}


def pipeline_key(params: Params) -> str:
    """Digest of the resolved params, the images and ltrec's code: the same state is the same parent run."""
    settings = params.model_dump(mode="json", exclude=_INDIFFERENT)
    return artifacts.digest(settings, _dataset(), project.code_digest())[:16]


def pipeline_name(key: str) -> str:
    """What the parent run is called; DVC's name of an experiment tells more than a digest alone."""
    return f"{os.environ.get('DVC_EXP_NAME') or 'pipeline'} {key[:8]}"


def standing_tags(key: str) -> dict[str, str]:
    """Tags that every run of a state carries; what is unknown is left out."""
    git = project.git_state()
    lock = Path("dvc.lock")
    tags = {
        "ltrec.state": key,
        "ltrec.version": __version__,
        "ltrec.dataset": _dataset(),
        "ltrec.dirty": None if git.dirty is None else str(git.dirty).lower(),
        "ltrec.dvc_lock": artifacts.digest(lock) if lock.is_file() else None,
        "ltrec.experiment": os.environ.get("DVC_EXP_NAME"),
        "mlflow.source.git.commit": git.commit,
        "mlflow.source.name": "ltrec",
        "mlflow.source.type": "LOCAL",
        "mlflow.user": _user(),
    }
    return {name: value for name, value in tags.items() if value}


def _dataset() -> str | None:
    """The images' digest. From the file that Git keeps: DVC may have left the others out."""
    try:
        return str(json.loads(artifacts.Layout().stats.read_text(encoding="utf-8"))["digest"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _user() -> str | None:
    import getpass

    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        return None
