"""The `evaluate` section of `params.yaml`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ltrec.data.shot_groups import ShotSettings
from ltrec.evaluation.figures import PlotSettings
from ltrec.settings import Settings


class EvaluateSettings(Settings):
    """How variants are compared on the test split."""

    shots: ShotSettings = ShotSettings()
    bootstrap: Annotated[int, Field(ge=0, le=100_000)] = 1000
    """Resamples of the test images behind the 95 % intervals; 0: no intervals."""
    plots: PlotSettings = PlotSettings()
