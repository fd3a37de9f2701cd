"""What a pipeline's runs are called, and what is known about where they come from."""

from __future__ import annotations

import os
from pathlib import Path

from ltrec import __version__, artifacts, project


def pipeline_name(key: str) -> str:
    """What the parent run is called; DVC's name of an experiment tells more than a digest alone."""
    return f"{os.environ.get('DVC_EXP_NAME') or 'pipeline'} {key[:8]}"


def standing_tags(key: str, dataset: str | None) -> dict[str, str]:
    """Tags that every run of a state carries; what is unknown is left out."""
    git = project.git_state()
    lock = Path("dvc.lock")
    tags = {
        "ltrec.state": key,
        "ltrec.version": __version__,
        "ltrec.dataset": dataset,
        "ltrec.dirty": None if git.dirty is None else str(git.dirty).lower(),
        "ltrec.dvc_lock": artifacts.digest(lock) if lock.is_file() else None,
        "ltrec.experiment": os.environ.get("DVC_EXP_NAME"),
        "mlflow.source.git.commit": git.commit,
        "mlflow.source.name": "ltrec",
        "mlflow.source.type": "LOCAL",
        "mlflow.user": _user(),
    }
    return {name: value for name, value in tags.items() if value}


def _user() -> str | None:
    import getpass

    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        return None
