"""Runs in MLflow for the stages: the parameters are taken apart here for the tracking."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

from ltrec import artifacts, pipeline, tracking

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from ltrec.config.params import Params

INDIFFERENT: dict[str, Any] = {
    "device": True,
    "tracking": True,
    "export": True,
    "represent": {"workers"},
    "featurize": {"workers", "batch_size"},
    "evaluate": {"plots"},
}
"""What does not decide the comparison is no part of the pipeline's state."""


def make_ready(params: Params) -> None:
    """Start what sends the records, so that MLflow is imported while the stage imports torch."""
    if params.tracking.enabled:
        tracking.make_ready(params.tracking.patience)


def stage_run(params: Params, stage: str, variant: str | None = None) -> AbstractContextManager[tracking.Run]:
    """Return `tracking.stage_run` of the pipeline that these parameters describe.

    Where `tracking.enabled` is false, what is said to the run is dropped.
    """
    if not params.tracking.enabled:
        return contextlib.nullcontext(tracking.Run())
    return tracking.stage_run(_pipeline(params), stage, variant)


def _pipeline(params: Params) -> tracking.Pipeline:
    """Return the pipeline's state; its key is a digest of the resolved parameters, the images and ltrec's code."""
    settings, dataset = params.model_dump(mode="json", exclude=INDIFFERENT), _dataset()
    return tracking.Pipeline(
        key=artifacts.digest(settings, dataset, pipeline.code_digest())[:16],
        dataset=dataset,
        **params.tracking.model_dump(exclude={"enabled"}),
    )


def _dataset() -> str | None:
    """Return the images' digest from the file that Git keeps, since DVC may have left the others out."""
    try:
        return str(json.loads(artifacts.Layout().stats.read_text(encoding="utf-8"))["digest"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
