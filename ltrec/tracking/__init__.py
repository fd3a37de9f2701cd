"""What goes to MLflow: one parent run for a pipeline state, a child for the representation and for each variant.

A run's record lies on disk (`.ltrec/tracking/`), and MLflow is made equal to it: whatever was sent before is not
sent again, whatever could not be sent is sent later. So a resumed or repeated stage doubles nothing, and trouble
with the tracking never reaches the training.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from ltrec import console, project
from ltrec.settings import Settings
from ltrec.tracking.records import NoRun, Record, Run
from ltrec.tracking.state import pipeline_key, standing_tags

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ltrec.params import Params

__all__ = ["NoRun", "Run", "TrackingSettings", "stage_run", "sync"]

# The stages that have a run of their own; the others write on the parent.
_CHILDREN = {"represent", "rebalance"}

Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^/:]+$")]


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
    patience: Annotated[float, Field(gt=0)] = 60.0
    """Seconds that a finished stage waits for a store that answers; one that does not costs a few."""


@contextlib.contextmanager
def stage_run(params: Params, stage: str, variant: str | None = None) -> Iterator[Run]:
    """Record a stage: yields where its params, metrics, files and tags go.

    `represent` and each variant of `rebalance` have a child run, the other stages write on the parent.
    Entering again continues the same run. MLflow's trouble ends in one warning, never in an exception.
    """
    settings = params.tracking
    if not settings.enabled:
        yield NoRun()
        return
    from ltrec.tracking.courier import Courier

    child = stage in _CHILDREN
    key = pipeline_key(params)
    record = Record.open(
        project.state_dir() / "tracking" / key[:16],
        stage=stage if child else "pipeline",
        variant=variant,
        settings=settings.model_dump(),
    )
    tags = standing_tags(key) | ({"ltrec.variant": variant} if variant else {})
    record.tags(tags | {"ltrec.stage": record.stage})
    record.status("RUNNING")
    courier = Courier.instance(settings.patience)
    with record.held():
        try:
            with courier.attending(record, sample=settings.system_metrics and child):
                yield record
        except (KeyboardInterrupt, SystemExit):
            record.status("KILLED")
            raise
        except BaseException:
            record.status("FAILED")
            raise
        else:
            record.status("FINISHED")
        finally:
            courier.deliver(record)


def sync() -> None:
    """Send what earlier stages could not send, and say what became of it."""
    from ltrec.tracking.courier import Courier

    waiting = Record.pending(project.state_dir() / "tracking")
    if not waiting:
        console.say("sync: nothing is waiting; MLflow has everything")
        return
    courier = Courier.instance(patience=600.0)
    for record in waiting:
        courier.deliver(record)
    left = len(Record.pending(project.state_dir() / "tracking"))
    console.say(f"sync: {len(waiting) - left} of {len(waiting)} run(s) sent" + (f", {left} kept" if left else ""))
