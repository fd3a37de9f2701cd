"""What goes to MLflow: one parent run for a pipeline state, a child for the representation and for each variant.

The seeds of `ltrec seeds` have a parent run of their own, with a child for each seed.

A run's record lies on disk (`.ltrec/tracking/`), and MLflow is made equal to it: whatever was sent before is not
sent again, whatever could not be sent is sent later. So a resumed or repeated stage doubles nothing, and trouble
with the tracking never reaches the training.
"""

from __future__ import annotations

import contextlib
import getpass
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ltrec import __version__, artifacts, console, project
from ltrec.errors import UserError
from ltrec.tracking import moving
from ltrec.tracking.records import About, Record
from ltrec.tracking.run import Run
from ltrec.tracking.sending import records_folder, sender

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Pipeline", "Run", "make_ready", "stage_run", "sync"]

# The stages that have a run of their own; the others write on the parent.
_NESTED = {"represent", "rebalance", "seed"}
# Those that take long enough to watch the machine.
_WATCHED = {"represent", "featurize", "rebalance"}
_SYNC_PATIENCE = 30.0


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
        kind: What the parent run's name begins with.
    """

    key: str
    dataset: str | None
    experiment: str
    model: str
    system_metrics: bool
    patience: float
    kind: str = "pipeline"


def make_ready(patience: float) -> None:
    """Start what sends the records; of torchrun's processes only the first has one to send."""
    if os.environ.get("RANK", "0") == "0":
        sender(patience)


@contextlib.contextmanager
def stage_run(pipeline: Pipeline, stage: str, variant: str | None = None) -> Iterator[Run]:
    """Record a stage: yields where its params, metrics, files and tags go.

    `represent`, each variant of `rebalance` and each `seed` have a child run, the other stages write on the parent.
    Entering again continues the same run. Trouble with MLflow ends in one warning, never in an exception.
    """
    with contextlib.suppress(UserError):  # what is wrong with the store, the sending says
        moving.follow()
    sending = sender(pipeline.patience)
    record = _start(pipeline, stage, variant, sending.key)
    if record is None:
        yield Run()
        return
    record.status("RUNNING")
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
        record.release()
        sending.deliver()


def sync() -> None:
    """Send what earlier stages could not send, and say what became of it; follow a project that was moved."""
    moving.follow()
    waiting = _unsent_runs()
    if not waiting:
        console.say("sync: no run is waiting to be sent")
        return
    sender(_SYNC_PATIENCE).deliver(insist=True)
    left = len(waiting & _unsent_runs())
    console.say(f"sync: {len(waiting) - left} of {len(waiting)} run(s) sent" + (f", {left} kept" if left else ""))


def _unsent_runs() -> set[tuple[str, str]]:
    return {(record.state, record.about.name) for record in Record.finished(records_folder())}


def _start(pipeline: Pipeline, stage: str, variant: str | None, sender_key: str) -> Record | None:
    """Return the stage's record with the tags of every run, or None after a word about why not."""
    # DVC's name of an experiment tells more than a digest alone.
    name = f"{os.environ.get('DVC_EXP_NAME') or pipeline.kind} {pipeline.key[:8]}"
    about = About(
        stage, variant, stage in _NESTED, name, pipeline.experiment, pipeline.model,
        sender=sender_key, sample=pipeline.system_metrics and stage in _WATCHED,
    )  # fmt: skip
    try:
        record = Record.start(records_folder() / pipeline.key, about)
    except OSError as error:
        console.warn(f"{stage}: not recorded for MLflow: {error}")
        return None
    record.tags(_origin(pipeline))
    return record


def _origin(pipeline: Pipeline) -> dict[str, str]:
    """Return tags that say where a run comes from; what is unknown is left out."""
    git, lock = project.git_state(), Path("dvc.lock")
    user = None
    with contextlib.suppress(OSError, KeyError):  # a container's user without a name
        user = getpass.getuser()
    tags = {
        "ltrec.state": pipeline.key,
        "ltrec.version": __version__,
        "ltrec.dataset": pipeline.dataset,
        "ltrec.dirty": None if git.dirty is None else str(git.dirty).lower(),
        "ltrec.dvc_lock": artifacts.digest(lock) if lock.is_file() else None,
        "ltrec.experiment": os.environ.get("DVC_EXP_NAME"),
        "mlflow.source.git.commit": git.commit,
        "mlflow.source.name": "ltrec",
        "mlflow.source.type": "LOCAL",
        "mlflow.user": user,
    }
    return {name: value for name, value in tags.items() if value}
