"""The pipeline as benchmarks run it: its stages one after another in this process, or a clone to run it in."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from machine import ROOT

from ltrec import artifacts
from ltrec.config.tracking import TrackingSettings

if TYPE_CHECKING:
    from ltrec.config.params import Params

GROUPS = ("many", "medium", "few", "all")


def run_stages(folder: Path, data: Path, settings: Params, *, seed: int) -> dict[str, Any]:
    """Run the pipeline from `prepare` to `evaluate`, in a folder of its own and without MLflow.

    Args:
        folder: Where to; made here.
        data: The images, which become `folder/data`.
        settings: The parameters.
        seed: In place of theirs.

    Returns:
        Test accuracy of every variant in the shot groups and over all, and the champion.
    """
    from ltrec.stages import evaluate, featurize, prepare, rebalance, represent

    settings = settings.model_copy(update={"seed": seed, "tracking": TrackingSettings(enabled=False)})
    folder.mkdir()
    (folder / "data").symlink_to(data)
    (folder / "params.yaml").touch()  # marks the project's root
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()):
        for stage in (prepare, represent, featurize):
            stage.run(settings)
        for variant in settings.rebalance:
            rebalance.run(settings, variant)
        evaluate.run(settings)
        found = artifacts.read_json(artifacts.Layout().evaluation_metrics)
    figures = {name: {group: found[name][group] for group in GROUPS} for name in settings.rebalance}
    return figures | {"champion": found["champion"]}


def fresh_clone(folder: Path) -> dict[str, str]:
    """Clone the checkout's commit, and give the environment in which `ltrec` and `dvc` are those of the clone."""
    subprocess.run(["git", "clone", "--quiet", ROOT, folder], check=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DVC_", "MLFLOW_", "OMP_"))}
    env = kept | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(folder)}
    subprocess.run(["ltrec", "--version"], cwd=folder, env=env, stdout=subprocess.DEVNULL, check=True)
    return env
