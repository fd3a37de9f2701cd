"""What goes to MLflow: one parent run for a pipeline state, a child for the representation and for each variant.

A run's record lies on disk (`.ltrec/tracking/`), and MLflow is made equal to it: whatever was sent before is not
sent again, whatever could not be sent is sent later. So a resumed or repeated stage doubles nothing, and trouble
with the tracking never reaches the training.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ltrec import console, project
from ltrec.errors import UserError
from ltrec.tracking.records import Record, Run, describe
from ltrec.tracking.state import pipeline_name, standing_tags

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ltrec.tracking.courier import Courier

__all__ = ["Pipeline", "Run", "make_ready", "stage_run", "sync"]

# The stages that have a run of their own; the others write on the parent.
_NESTED = {"represent", "rebalance"}
# Those that take long enough to watch the machine.
_WATCHED = {"represent", "featurize", "rebalance"}
_SYNC_PATIENCE = 60.0


@dataclass(frozen=True)
class Pipeline:
    """The state of a pipeline that runs belong to, and how they are recorded.

    Attributes:
        key: Digest of what decides the comparison: the same key is the same parent run.
        dataset: Digest of the images, if it is known.
        experiment: MLflow's experiment that the runs belong to.
        model: The name that the champion is registered under.
        system_metrics: Whether the machine's load is recorded while a stage runs.
        patience: Seconds that a finished stage waits for the server's next answer.
    """

    key: str
    dataset: str | None
    experiment: str
    model: str
    system_metrics: bool
    patience: float


def make_ready(patience: float) -> None:
    """Start what sends the records; of torchrun's processes only the first has one to send."""
    if os.environ.get("RANK", "0") == "0":
        _courier(patience)


@contextlib.contextmanager
def stage_run(pipeline: Pipeline, stage: str, variant: str | None = None) -> Iterator[Run]:
    """Record a stage: yields where its params, metrics, files and tags go.

    `represent` and each variant of `rebalance` have a child run, the other stages write on the parent.
    Entering again continues the same run. Trouble with MLflow ends in one warning, never in an exception.
    """
    record = _open(pipeline, stage, variant)
    if record is None:
        yield Run()
        return
    courier = _courier(pipeline.patience)
    record.status("RUNNING")
    courier.attend(record, sample=pipeline.system_metrics and stage in _WATCHED)
    try:
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

    waiting = Record.pending(_folder())
    if not waiting:
        console.say("sync: nothing is waiting; MLflow has everything")
        return
    Courier.instance(_SYNC_PATIENCE).deliver_pending()
    left = len(Record.pending(_folder()))
    console.say(f"sync: {len(waiting) - left} of {len(waiting)} run(s) sent" + (f", {left} kept" if left else ""))


def _courier(patience: float) -> Courier:
    from ltrec.tracking.courier import Courier

    return Courier.instance(patience)


def _folder() -> Path:
    return project.state_dir() / "tracking"


def _open(pipeline: Pipeline, stage: str, variant: str | None) -> Record | None:
    """The stage's record with what is known of every run, or None and a word about why not."""
    about = describe(
        stage, variant,
        nested=stage in _NESTED, pipeline=pipeline_name(pipeline.key),
        experiment=pipeline.experiment, model=pipeline.model,
    )  # fmt: skip
    try:
        record = Record.start(_folder() / pipeline.key / (f"{stage}@{variant}" if variant else stage), about)
    except UserError:
        console.detail(f"{stage}: another process is recording the same run; this one does not")
        return None
    except OSError as error:
        console.warn(f"{stage}: not recorded for MLflow: {error}")
        return None
    record.tags(standing_tags(pipeline.key, pipeline.dataset))
    return record
