"""Learn the representation: backbone and joint classifier, on the natural or a resampled distribution."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from ltrec import artifacts, console, project, tracking
from ltrec.compute.precision import Compilation, PrecisionName
from ltrec.data.images.augmentation import AugmentSettings
from ltrec.data.images.decoding import Geometry
from ltrec.errors import UserError
from ltrec.models.backbones import BackboneSettings
from ltrec.models.freezing import FreezeSettings
from ltrec.settings import Count, Fraction, PositiveInt, Settings, conflict
from ltrec.training.optim import CosineSchedule, OptimizerSettings, ScheduleSettings, Sgd
from ltrec.training.samplers import InstanceBalanced, SamplerSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import torch
    from numpy.typing import NDArray

    from ltrec.compute.distributed import Ranks
    from ltrec.compute.precision import Precision
    from ltrec.config.params import Params
    from ltrec.data.image_lists import ImageList
    from ltrec.data.images.device_loader import Feed
    from ltrec.models.network import Network
    from ltrec.training.resume import ResumeFolder

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
    """Images an update, of all processes together; batch normalisation needs two in each."""
    sync_batch_norm: bool = False
    """Take batch norm's statistics over the GPUs of all processes; false: each over its own part of the batch."""
    clip_norm: Annotated[float, Field(gt=0, le=1e38)] | None = None
    """Largest norm of an update's gradient; null: not clipped."""
    label_smoothing: Fraction = 0.0
    """Share of each target that is spread evenly over all classes."""
    mixup: Annotated[float, Field(ge=0.01, le=100)] | None = None
    """α of the Beta(α, α) that says how much of each image another of its batch replaces, target alike; null: none."""
    ema: EmaSettings | None = None
    """Average the weights over the updates and keep the average; null: keep the last weights."""
    workers: Count | None = None
    """Processes that decode; null: none where little is decoded, else one a core."""
    precision: PrecisionName = "auto"
    """Of the arithmetic; auto: bf16 on a GPU that has it, fp32 elsewhere. The weights are fp32 in each."""
    compile: Compilation = "off"
    """torch.compile's mode: slow to begin with, then faster; reduce-overhead records CUDA graphs."""
    accumulate: PositiveInt | Literal["auto"] = 1
    """Pieces of a batch that go through one after another, for one update; batch norm sees a piece at a time.

    auto: one, and more where the GPU's memory does not hold it; of several processes' GPUs each must hold its part."""

    @property
    def pieces(self) -> int:
        """Of a batch, to begin with."""
        return 1 if self.accumulate == "auto" else self.accumulate

    @model_validator(mode="after")
    def _pieces_fit(self) -> Self:
        if self.batch_size < 2 * self.pieces:
            raise conflict(
                ("accumulate",),
                f"batch_size ({self.batch_size}) leaves fewer than two images for each of so many pieces",
            )
        return self

    @model_validator(mode="after")
    def _graphs_take_whole_batches(self) -> Self:
        # A CUDA graph writes the next piece's gradients over those that are to be added to.
        if self.compile == "reduce-overhead" and self.accumulate != 1:
            raise conflict(("compile",), "reduce-overhead needs accumulate: 1; allowed with it: off, default")
        return self

    @model_validator(mode="after")
    def _schedule_fits(self) -> Self:
        try:
            self.schedule.check(self.epochs)
        except ValueError as error:
            raise conflict(("schedule",), str(error)) from None
        return self


# What changes nothing of what is learnt. The number of processes does (batch norm, dropout), but a training may go on
# with as many as there are.
_INDECISIVE = {"workers", "compile"}


def run(params: Params, *, profile: bool = False) -> None:
    """Train, going on from the last finished epoch of an interrupted training of the same thing.

    Args:
        params: The parameters.
        profile: Write where the time goes.
    """
    from ltrec import profiling
    from ltrec.compute import device as devices
    from ltrec.compute import distributed

    device = devices.resolve(params.device)
    devices.make_deterministic(params.seed)
    with distributed.joined(device) as ranks, profiling.recording("represent", device, wanted=profile and ranks.first):
        _run(params, device, ranks)


def _run(params: Params, device: torch.device, ranks: Ranks) -> None:
    from ltrec.compute import device as devices
    from ltrec.compute import precision
    from ltrec.data.image_lists import read_classes, read_list
    from ltrec.models import network as networks
    from ltrec.training import resume as checkpoints

    layout, settings = artifacts.Layout(), params.represent
    classes = read_classes(layout.classes)
    train = read_list(layout.split_list("train"), len(classes))
    val = read_list(layout.split_list("val"), len(classes), unknown=True).known()
    _check_share(min(settings.batch_size, len(train)), settings.pieces, ranks)
    computed = precision.resolve(settings.precision, device)
    inputs = [path(split) for path in (layout.split_list, layout.split_digest) for split in ("train", "val")]
    inputs += [layout.cache_list] if layout.cache_list.is_file() else []
    decisive = settings.model_dump(mode="json", exclude=_INDECISIVE) | {"precision": computed}
    weights = settings.backbone.digest()
    key = artifacts.digest(decisive, weights, params.seed, device.type, project.code_digest(), layout.classes, *inputs)
    with contextlib.ExitStack() as held:
        resume, record = None, tracking.Run()
        if ranks.first:
            resume = held.enter_context(checkpoints.ResumeFolder("represent", key))
            record = held.enter_context(tracking.stage_run(params, "represent"))
            checkpoints.sweep("represent")
        given = {"seed": params.seed} | ({} if weights is None else {"weights_sha256": weights})
        facts = {"device": device.type, "processes": ranks.size, "precision": computed}
        record.params({"represent": settings.model_dump(mode="json")} | facts | given)
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
            if settings.sync_batch_norm and ranks.size > 1:
                network = networks.synchronised(network)
            feeds = _feeds(settings, network, root, (train, val), ranks)
            trained, history = _train(network, feeds, settings, params.seed, computed, ranks, resume, record)
        if resume is None:
            return
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


def _check_share(images: int, pieces: int, ranks: Ranks) -> None:
    """Batch norm takes no fewer than two images at a time."""
    if images // ranks.size < 2 * pieces:
        raise UserError(
            f"{images} images an update leave fewer than two for each of {ranks.size} process(es), {pieces} piece(s)",
            where="params.yaml: represent.batch_size" + (", represent.accumulate" if pieces > 1 else ""),
        )


class _LabelledFeed:
    """Batches of images with their labels."""

    def __init__(self, feed: Feed, labels: NDArray[np.int64], device: torch.device) -> None:
        import torch

        self.labels = labels
        self._feed = feed
        self._on_device = torch.from_numpy(labels).to(device)

    def epoch(self, indices: NDArray[np.int64], key: tuple[int, ...]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for images, index in self._feed.epoch(indices, key, drop_last=True):
            yield images, self._on_device[index]

    def once(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for images, index in self._feed.once():
            yield images, self._on_device[index]


def _feeds(
    settings: RepresentSettings, network: Network, root: Path, splits: tuple[ImageList, ImageList], ranks: Ranks
) -> tuple[_LabelledFeed, _LabelledFeed]:
    """Of train, augmented, and of val."""
    from ltrec.data.images.device_loader import Feed, training_feed

    geometry, device = network.geometry, next(network.parameters()).device
    size, workers, (train, val) = settings.batch_size, settings.workers, splits
    augmented = training_feed(
        (root, train.paths), geometry, device, size,
        augment=settings.augment.build(), workers=workers, ranks=ranks,
    )  # fmt: skip
    plain = Feed((root, val.paths), geometry, device, size, workers=workers, ranks=ranks)
    return _LabelledFeed(augmented, train.labels, device), _LabelledFeed(plain, val.labels, device)


def _train(
    network: Network,
    feeds: tuple[_LabelledFeed, _LabelledFeed],
    settings: RepresentSettings,
    seed: int,
    computed: Precision,
    ranks: Ranks,
    resume: ResumeFolder | None,
    record: tracking.Run,
) -> tuple[Network, list[dict[str, float]]]:
    """Train the network in place; returns what is kept of it, and the history, a row an epoch."""
    from ltrec import profiling
    from ltrec.compute import precision
    from ltrec.compute.device import require_finite
    from ltrec.training import loop as training
    from ltrec.training.step import Mode

    train, val = feeds
    sampler = settings.sampler.build(train.labels, seed=seed, epochs=settings.epochs)
    batch_size = min(settings.batch_size, len(train.labels))
    steps = len(train.labels) // batch_size
    optimizer = settings.optimizer.build(network.backbone.parameters(), network.head.parameters())
    schedule = settings.schedule.build(optimizer, epochs=settings.epochs, steps=steps)
    scaler = precision.scaler(computed, next(network.parameters()).device)
    parts: dict[str, Any] = {
        "network": network, "optimizer": optimizer, "schedule": schedule, "sampler": sampler, "scaler": scaler
    }  # fmt: skip
    average = None if settings.ema is None else training.moving_average(network, settings.ema.decay)
    kept: Network = network if average is None else average.module  # type: ignore[assignment]
    if average is not None:
        parts["average"] = average
    history: list[dict[str, float]] = []
    if state := ranks.from_first(None if resume is None else resume.load()):
        for name, part in parts.items():
            part.load_state_dict(state[name])
        history = state["history"]
        if len(history) == settings.epochs:
            console.say("represent: this training is already finished; taking its result")
        else:
            console.say(f"represent: going on after epoch {len(history)}/{settings.epochs}")
    record.history(history, "represent")

    def on_epoch(report: training.EpochReport) -> None:
        with profiling.span("validation"):
            for module in dict.fromkeys((network, kept)):
                ranks.share_buffers(module)
            reached, largest = training.validate(
                kept, val.once(), network.head.classes, precision=computed, ranks=ranks
            )
        # No loss tells of the epoch's last update; what is saved must be fit to go on from.
        require_finite(
            largest, "the largest logit on val", epoch=report.epoch, step=steps - 1, lr=report.lr, where=training.LR
        )
        row = {
            "epoch": report.epoch + 1, "loss": report.loss, "accuracy": report.accuracy, "val": reached, "lr": report.lr
        }  # fmt: skip
        history.append(row)
        with profiling.span("tracking"):
            if resume is not None:
                resume.save({name: part.state_dict() for name, part in parts.items()} | {"history": history})
            record.history([row], "represent")
        advance(1, f"loss {report.loss:.3f}  val {reached:.1%}")

    with console.progress("represent: epoch", settings.epochs, done=len(history)) as advance:
        training.train(
            network, lambda epoch: train.epoch(sampler.epoch(epoch), (seed, epoch)), optimizer, schedule,
            epochs=range(len(history), settings.epochs), batch_size=batch_size, seed=seed, on_epoch=on_epoch,
            clip_norm=settings.clip_norm, label_smoothing=settings.label_smoothing, mixup=settings.mixup,
            average=average, gradient_scaler=scaler, ranks=ranks,
            mode=Mode(computed, settings.compile, settings.pieces, yields=settings.accumulate == "auto"),
        )  # fmt: skip
    return kept, history
