"""The stages one after another in this process, as a benchmark runs them: in a folder of its own, without MLflow."""

from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING, Any

from ltrec import artifacts
from ltrec.tracking import TrackingSettings

if TYPE_CHECKING:
    from pathlib import Path

    from ltrec.params import Params

GROUPS = ("many", "medium", "few", "all")


def run_stages(folder: Path, data: Path, settings: Params, *, seed: int) -> dict[str, Any]:
    """Run the pipeline from `prepare` to `evaluate`.

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
