"""The `evaluate` section of `params.yaml`."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ltrec.data.shot_groups import ShotSettings
from ltrec.evaluation.figures import PlotSettings
from ltrec.settings import Settings, conflict


class EvaluateSettings(Settings):
    """How variants are compared on the test split, and which is the champion."""

    shots: ShotSettings = ShotSettings()
    bootstrap: Annotated[int, Field(ge=0, le=100_000)] = 1000
    """Resamples of the test images behind the 95 % intervals, and of the val images behind the champion's doubt; 0:
    neither."""
    prefer: Literal["best", "simplest"] = "best"
    """The champion: the best on val, or the simplest within one standard error of it. From simple to complex: as
    trained (joint, published), computed (ncm, tau_norm, …), trained anew (crt, lws, …), combined."""
    plots: PlotSettings = PlotSettings()

    @model_validator(mode="after")
    def _error_is_known(self) -> Self:
        if self.prefer == "simplest" and not self.bootstrap:
            raise conflict(
                ("prefer",), "simplest needs the standard error of evaluate.bootstrap, got 0; allowed: 1 or more"
            )
        return self
