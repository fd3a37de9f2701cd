"""A training that is validated, saved after each epoch, and goes on from its last finished one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ltrec import console, profiling
from ltrec.compute.device import require_finite
from ltrec.errors import UserError
from ltrec.training import loop
from ltrec.training.statistics import reestimate

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch.optim.swa_utils import AveragedModel

    from ltrec.compute.distributed import World
    from ltrec.models.network import Network
    from ltrec.training.labelled_loader import LabelledLoader
    from ltrec.training.losses.module import LossModule
    from ltrec.training.mixing import Mix
    from ltrec.training.resume import ResumeFolder
    from ltrec.training.samplers import Sampler
    from ltrec.training.step import ComputeConfig

    Row = dict[str, float]


BATCH_NORM = "params.yaml: represent.batch_norm"


@dataclass(frozen=True)
class Session:
    """What is trained, by what, and how; `loop.train` says what each is."""

    network: Network
    loss: LossModule
    sampler: Sampler
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    gradient_scaler: torch.amp.GradScaler
    average: AveragedModel | None
    epochs: int
    batch_size: int
    steps: int
    """Updates an epoch."""
    seed: int
    frozen_in: Callable[[int], list[str]] | None
    """Gives the parts of the backbone that are frozen in an epoch; None: none ever is."""
    clip_norm: float | None
    sam_rho: float | None
    constrain: Callable[[], None] | None
    mix: Mix | None
    compute: ComputeConfig
    world: World

    @property
    def kept(self) -> Network:
        """Return what is validated and kept: the average of the weights where there is one, else the network."""
        return self.network if self.average is None else self.average.module  # type: ignore[return-value]

    def run(
        self,
        train: LabelledLoader,
        val: LabelledLoader,
        *,
        resume: ResumeFolder | None,
        on_rows: Callable[[list[Row]], None],
    ) -> list[Row]:
        """Train in place, from the last finished epoch on, and return the history, a row an epoch.

        Args:
            train: Augmented images.
            val: The images that each epoch is validated on.
            resume: Where the state is kept; None on all ranks but the first.
            on_rows: Called with the rows of the epochs that were finished before, then with each new one.
        """
        history = self._load(resume)
        on_rows(history)

        def on_epoch(report: loop.EpochReport) -> None:
            row = self._validated(report, val)
            history.append(row)
            with profiling.span("tracking"):
                if resume is not None:
                    states = {name: part.state_dict() for name, part in self._parts().items()}
                    resume.save(states | {"history": history})
                on_rows([row])
            advance(1, f"loss {row['loss']:.3f}  val {row['val']:.1%}")

        with console.progress("represent: epoch", self.epochs, done=len(history)) as advance:
            loop.train(
                self.network, self.loss, lambda epoch: train.epoch(self.sampler.epoch(epoch), (self.seed, epoch)),
                self.optimizer, self.schedule,
                epochs=range(len(history), self.epochs), batch_size=self.batch_size, seed=self.seed, on_epoch=on_epoch,
                freeze=self._freeze, clip_norm=self.clip_norm, sam_rho=self.sam_rho, constrain=self.constrain,
                mix=self.mix, average=self.average, compute=self.compute, gradient_scaler=self.gradient_scaler,
                world=self.world,
            )  # fmt: skip
        return history

    def reestimate(self, train: LabelledLoader, sampler: Sampler, epochs: int, val: LabelledLoader) -> float:
        """Take the kept network's batch-norm statistics anew, over epochs of other draws of the training images.

        Returns its balanced accuracy on val from then on.
        """
        drawn = (
            batch
            for epoch in range(epochs)
            for batch in train.epoch(sampler.epoch(epoch), (self.seed, self.epochs + epoch))
        )
        loop.seed_layers(self.seed, self.epochs, self.world)
        reestimate(self.kept, drawn, precision=self.compute.precision, world=self.world)
        balanced, largest = self._on_val(val)
        if not math.isfinite(largest):
            raise UserError("with these statistics a logit on val is not finite; allowed: null", where=BATCH_NORM)
        return balanced

    def _on_val(self, val: LabelledLoader) -> tuple[float, float]:
        return loop.validate(
            self.kept, val.once(), self.network.head.classes, precision=self.compute.precision, world=self.world
        )

    def _freeze(self, epoch: int) -> bool:
        return self.frozen_in is not None and self.network.freeze(self.frozen_in(epoch))

    def _parts(self) -> dict[str, Any]:
        """Return what has a state that decides how the training goes on."""
        parts = {
            "network": self.network, "optimizer": self.optimizer, "schedule": self.schedule, "sampler": self.sampler,
            "scaler": self.gradient_scaler,
        }  # fmt: skip
        return parts if self.average is None else parts | {"average": self.average}

    def _load(self, resume: ResumeFolder | None) -> list[Row]:
        state = self.world.from_first(None if resume is None else resume.load())
        if not state:
            return []
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        history: list[Row] = state["history"]
        if len(history) == self.epochs:
            console.say("represent: this training is already finished; taking its result")
        else:
            console.say(f"represent: going on after epoch {len(history)}/{self.epochs}")
        return history

    def _validated(self, report: loop.EpochReport, val: LabelledLoader) -> Row:
        with profiling.span("validation"):
            for module in dict.fromkeys((self.network, self.kept)):
                self.world.share_buffers(module)
            balanced, largest = self._on_val(val)
        # No loss tells of the epoch's last update; what is saved must be fit to go on from.
        require_finite(
            largest, "the largest logit on val", epoch=report.epoch, step=self.steps - 1, lr=report.lr, where=loop.LR
        )
        return {
            "epoch": report.epoch + 1, "loss": report.loss, "accuracy": report.accuracy, "val": balanced,
            "lr": report.lr,
        }  # fmt: skip
