"""Learn the representation: backbone and joint classifier, on the natural or a resampled distribution."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import Field, model_validator

from ltrec import artifacts, console, project, tracking
from ltrec.augment import AugmentSettings
from ltrec.backbones import BackboneSettings
from ltrec.data.decoding import Geometry
from ltrec.freezing import FreezeSettings
from ltrec.optim import CosineSchedule, OptimizerSettings, ScheduleSettings, Sgd
from ltrec.samplers import InstanceBalanced, SamplerSettings
from ltrec.settings import Count, Fraction, PositiveInt, Settings, conflict

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

    from ltrec.checkpoints import ResumeFolder
    from ltrec.data.lists import ImageList
    from ltrec.network import Network
    from ltrec.params import Params

Channel = Annotated[float, Field(ge=0, le=1)]
Deviation = Annotated[float, Field(gt=0, le=1)]


class ImageSettings(Settings):
    """What the network sees: the evaluation transform and the normalisation."""

    size: PositiveInt = 224
    """Side of the square, in pixels."""
    resize: PositiveInt | None = None
    """Short side before the centre crop, in pixels; null: 8/7 of `size`, as in 256 → 224."""
    mean: tuple[Channel, Channel, Channel] = (0.485, 0.456, 0.406)
    std: tuple[Deviation, Deviation, Deviation] = (0.229, 0.224, 0.225)

    @model_validator(mode="after")
    def _crop_fits(self) -> Self:
        if self.resize is not None and self.resize < self.size:
            raise ValueError(f"resize must be at least size ({self.size}), got {self.resize}")
        return self

    @property
    def geometry(self) -> Geometry:
        return Geometry(size=self.size, resize=self.resize or round(self.size * 8 / 7))


class EmaSettings(Settings):
    """An exponential moving average of the weights, validated and kept in place of the last ones."""

    decay: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Share of the average that an update leaves; the average looks back over about 1 / (1 − decay) updates."""


class RepresentSettings(Settings):
    """How the representation is learnt."""

    backbone: BackboneSettings
    image: ImageSettings = ImageSettings()
    augment: AugmentSettings = AugmentSettings()
    sampler: SamplerSettings = InstanceBalanced()
    freeze: FreezeSettings | None = None
    """What of the backbone stays as it began, batch-norm statistics included; null: nothing."""
    optimizer: OptimizerSettings = Sgd()
    schedule: ScheduleSettings = CosineSchedule()
    epochs: PositiveInt = 90
    batch_size: Annotated[int, Field(ge=2)] = 128
    """Images an update; batch normalisation needs two."""
    clip_norm: Annotated[float, Field(gt=0, le=1e38)] | None = None
    """Largest norm of an update's gradient; null: not clipped."""
    label_smoothing: Fraction = 0.0
    """Share of each target that is spread evenly over all classes."""
    ema: EmaSettings | None = None
    """Average the weights over the updates and keep the average; null: keep the last weights."""
    workers: Count | None = None
    """Processes that decode; null: none for small images (they stay in memory), else one a core."""

    @model_validator(mode="after")
    def _schedule_fits(self) -> Self:
        try:
            self.schedule.check(self.epochs)
        except ValueError as error:
            raise conflict(("schedule",), str(error)) from None
        return self


def run(params: Params) -> None:
    """Train, going on from the last finished epoch of an interrupted training of the same thing."""
    from ltrec import checkpoints
    from ltrec import device as devices
    from ltrec import network as networks
    from ltrec.data.lists import read_classes, read_list

    layout, settings = artifacts.Layout(), params.represent
    device = devices.resolve(params.device)
    devices.make_deterministic(params.seed)
    classes = read_classes(layout.classes)
    train = read_list(layout.split_list("train"), len(classes))
    val = read_list(layout.split_list("val"), len(classes), unknown=True).known()
    inputs = [path(split) for path in (layout.split_list, layout.split_digest) for split in ("train", "val")]
    decisive = settings.model_dump(mode="json", exclude={"workers"})
    weights = settings.backbone.digest()
    key = artifacts.digest(decisive, weights, params.seed, device.type, project.code_digest(), layout.classes, *inputs)
    with checkpoints.ResumeFolder("represent", key) as resume, tracking.stage_run(params, "represent") as record:
        checkpoints.sweep("represent")
        given = {"seed": params.seed} | ({} if weights is None else {"weights_sha256": weights})
        record.params({"represent": settings.model_dump(mode="json"), "device": device.type} | given)
        image = settings.image
        network = networks.build(settings.backbone, image.geometry, image.mean, image.std, len(classes))
        if settings.freeze is not None:
            network.freeze(settings.freeze.frozen(network.backbone))
        root = Path(params.prepare.source.root)
        with devices.memory_for(
            f"{settings.batch_size} images at a time",
            where="params.yaml: represent.batch_size", instead="a smaller one may fit",
        ):  # fmt: skip
            network = networks.on_device(network, device)
            trained, history = _train(network, root, train, val, settings, params.seed, resume, record)
        artifacts.write_csv(layout.history, history)
        header = given | {"classes": artifacts.digest(layout.classes)}
        networks.save(trained.cpu(), layout.model, backbone=settings.backbone, header=header)
        record.file(layout.history)
        # The checkpoint stays: a kill before DVC has the network must not cost the training; `featurize` discards it.
        resume.finish(artifacts.digest(layout.model))
    console.say(
        f"represent: {settings.backbone.name}, {trained.head.dim} features,"
        f" {history[-1]['val']:.1%} balanced accuracy on val → {layout.model}"
    )


def _train(
    network: Network,
    root: Path,
    train: ImageList,
    val: ImageList,
    settings: RepresentSettings,
    seed: int,
    resume: ResumeFolder,
    record: tracking.Run,
) -> tuple[Network, list[dict[str, float]]]:
    """Train the network in place; returns what is kept of it, and the history, a row an epoch."""
    import torch

    from ltrec import training
    from ltrec.device import require_finite
    from ltrec.loading import Batches, Images, view_seeds
    from ltrec.selection import balanced_accuracy

    geometry, pin = network.geometry, next(network.parameters()).is_cuda
    loader, val_loader = (
        Batches(Images(root, split.paths, geometry, view), settings.batch_size, settings.workers, pin=pin)
        for split, view in ((train, settings.augment.build(geometry)), (val, None))
    )
    labels, val_labels = torch.from_numpy(train.labels), torch.from_numpy(val.labels)

    sampler = settings.sampler.build(train.labels, seed=seed, epochs=settings.epochs)
    steps = max(len(train.paths) // settings.batch_size, 1)
    optimizer = settings.optimizer.build(network.backbone.parameters(), network.head.parameters())
    schedule = settings.schedule.build(optimizer, epochs=settings.epochs, steps=steps)
    parts: dict[str, Any] = {"network": network, "optimizer": optimizer, "schedule": schedule, "sampler": sampler}
    average = None if settings.ema is None else training.moving_average(network, settings.ema.decay)
    kept: Network = network if average is None else average.module  # type: ignore[assignment]
    if average is not None:
        parts["average"] = average
    history: list[dict[str, float]] = []
    if state := resume.load():
        for name, part in parts.items():
            part.load_state_dict(state[name])
        history = state["history"]
        if len(history) == settings.epochs:
            console.say("represent: this training is already finished; taking its result")
        else:
            console.say(f"represent: going on after epoch {len(history)}/{settings.epochs}")
    record.history(history, "represent")

    def batches(epoch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        indices = sampler.epoch(epoch)
        for pixels, index in loader.epoch(indices, view_seeds(seed, epoch, len(indices)), drop_last=True):
            yield pixels, labels[index]

    def on_epoch(report: training.EpochReport) -> None:
        logits = training.predict_logits(kept, val_loader.once())
        # No loss tells of the epoch's last update; what is saved must be fit to go on from.
        largest = float(logits.abs().max())
        require_finite(
            largest, "the largest logit on val", epoch=report.epoch, step=steps - 1, lr=report.lr, where=training.LR
        )
        row = {
            "epoch": report.epoch + 1,
            "loss": report.loss,
            "accuracy": report.accuracy,
            "val": balanced_accuracy(logits, val_labels),
            "lr": report.lr,
        }
        history.append(row)
        resume.save({name: part.state_dict() for name, part in parts.items()} | {"history": history})
        record.history([row], "represent")
        advance(1, f"loss {report.loss:.3f}  val {row['val']:.1%}")

    with console.progress("represent: epoch", settings.epochs, done=len(history)) as advance:
        remaining = range(len(history), settings.epochs)
        training.train(
            network, batches, optimizer, schedule,
            epochs=remaining, seed=seed, on_epoch=on_epoch,
            clip_norm=settings.clip_norm, label_smoothing=settings.label_smoothing, average=average,
        )  # fmt: skip
    return kept, history
