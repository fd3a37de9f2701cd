"""The `tracking` section of `params.yaml`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ltrec.settings import Settings

Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"""^[^/:'"]+$""")]


class TrackingSettings(Settings):
    """What MLflow is told. Where it is comes from MLFLOW_TRACKING_URI; by default a store in the project's root."""

    enabled: bool = True
    """False: nothing is recorded, MLflow is not even imported."""
    experiment: Name = "ltrec"
    """The experiment that the runs belong to; MLFLOW_EXPERIMENT_NAME goes before."""
    model: Name = "ltrec"
    """The name that the champion is registered under."""
    system_metrics: bool = True
    """Record processor, memory, disk, network and GPU use while a stage runs."""
    patience: Annotated[float, Field(gt=0)] = 3.0
    """Seconds that a finished stage waits for the server's next answer; then the rest is sent later."""
