"""Learn the representation: backbone and joint classifier, on the natural or a resampled distribution."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ltrec import artifacts, console, project, tracking
from ltrec.errors import UserError
from ltrec.stages import recording

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from numpy.typing import NDArray

    from ltrec.compute.distributed import World
    from ltrec.compute.precision import Precision
    from ltrec.config.params import Params
    from ltrec.config.represent import RepresentSettings
    from ltrec.data.image_lists import ImageList
    from ltrec.data.images.device_loader import DeviceLoader
    from ltrec.models.network import Network
    from ltrec.training.resume import ResumeFolder


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
    with distributed.joined(device) as world, profiling.recording("represent", device, wanted=profile and world.first):
        _run(params, device, world)


def _run(params: Params, device: torch.device, world: World) -> None:
    from ltrec.compute import device as devices
    from ltrec.compute import precision
    from ltrec.data.image_lists import read_classes, read_list
    from ltrec.models import network as networks
    from ltrec.training import resume as resuming

    layout, settings = artifacts.Layout(), params.represent
    classes = read_classes(layout.classes)
    train = read_list(layout.split_list("train"), len(classes))
    val = read_list(layout.split_list("val"), len(classes), unknown=True).known()
    _check_share(min(settings.batch_size, len(train)), settings.micro_batches, world)
    computed = precision.resolve(settings.precision, device)
    inputs = [path(split) for path in (layout.split_list, layout.split_digest) for split in ("train", "val")]
    inputs += [layout.cache_list] if layout.cache_list.is_file() else []
    decisive = settings.model_dump(mode="json", exclude=_INDECISIVE) | {"precision": computed}
    weights = settings.backbone.digest()
    code = project.code_digest("represent")
    key = artifacts.digest(decisive, weights, params.seed, device.type, code, layout.classes, *inputs)
    with contextlib.ExitStack() as held:
        resume, record = None, tracking.Run()
        if world.first:
            resume = held.enter_context(resuming.ResumeFolder("represent", key))
            record = held.enter_context(recording.stage_run(params, "represent"))
            resuming.sweep("represent")
        given = {"seed": params.seed} | ({} if weights is None else {"weights_sha256": weights})
        facts = {"device": device.type, "processes": world.size, "precision": computed}
        record.params({"represent": settings.model_dump(mode="json")} | facts | given)
        image = settings.image
        network = networks.build(settings.backbone, image.geometry, image.mean, image.std, len(classes), settings.head)
        if settings.freeze is not None:
            network.freeze(settings.freeze.frozen(network.backbone))
        root = Path(params.prepare.source.root)
        with devices.memory_for(
            f"{settings.batch_size} images at a time",
            where="params.yaml: represent.batch_size", instead="a smaller one may fit",
        ):  # fmt: skip
            network = networks.on_device(network, device)
            if settings.sync_batch_norm and world.size > 1:
                network = networks.synchronised(network)
            loaders = _loaders(settings, network, root, (train, val), world)
            trained, history = _train(network, loaders, settings, params.seed, computed, world, resume, record)
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


def _check_share(images: int, micro_batches: int, world: World) -> None:
    """Batch norm takes no fewer than two images at a time."""
    if images // world.size < 2 * micro_batches:
        raise UserError(
            f"{images} images an update leave fewer than two for each of {world.size} process(es),"
            f" {micro_batches} micro-batch(es)",
            where="params.yaml: represent.batch_size" + (", represent.accumulate" if micro_batches > 1 else ""),
        )


class _LabelledLoader:
    """Batches of images with their labels."""

    def __init__(self, loader: DeviceLoader, labels: NDArray[np.int64], device: torch.device) -> None:
        import torch

        self.labels = labels
        self._feed = loader
        self._on_device = torch.from_numpy(labels).to(device)

    def epoch(self, indices: NDArray[np.int64], key: tuple[int, ...]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for images, index in self._feed.epoch(indices, key, drop_last=True):
            yield images, self._on_device[index]

    def once(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for images, index in self._feed.once():
            yield images, self._on_device[index]


def _loaders(
    settings: RepresentSettings, network: Network, root: Path, splits: tuple[ImageList, ImageList], world: World
) -> tuple[_LabelledLoader, _LabelledLoader]:
    """Of train, augmented, and of val."""
    from ltrec.data.images.device_loader import DeviceLoader, training_loader

    geometry, device = network.geometry, next(network.parameters()).device
    size, workers, (train, val) = settings.batch_size, settings.workers, splits
    augmented = training_loader(
        (root, train.paths), geometry, device, size,
        augment=settings.augment.build(), workers=workers, world=world,
    )  # fmt: skip
    plain = DeviceLoader((root, val.paths), geometry, device, size, workers=workers, world=world)
    return _LabelledLoader(augmented, train.labels, device), _LabelledLoader(plain, val.labels, device)


def _train(
    network: Network,
    loaders: tuple[_LabelledLoader, _LabelledLoader],
    settings: RepresentSettings,
    seed: int,
    computed: Precision,
    world: World,
    resume: ResumeFolder | None,
    record: tracking.Run,
) -> tuple[Network, list[dict[str, float]]]:
    """Train the network in place; returns what is kept of it, and the history, a row an epoch."""
    from ltrec import profiling
    from ltrec.compute import precision
    from ltrec.compute.device import require_finite
    from ltrec.training import loop as training
    from ltrec.training.step import ComputeConfig

    train, val = loaders
    counts = np.bincount(train.labels, minlength=network.head.classes)
    loss = settings.loss.build(counts).to(next(network.parameters()).device)
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
    if state := world.from_first(None if resume is None else resume.load()):
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
                world.share_buffers(module)
            reached, largest = training.validate(
                kept, val.once(), network.head.classes, precision=computed, world=world
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
            network, loss, lambda epoch: train.epoch(sampler.epoch(epoch), (seed, epoch)), optimizer, schedule,
            epochs=range(len(history), settings.epochs), batch_size=batch_size, seed=seed, on_epoch=on_epoch,
            clip_norm=settings.clip_norm, mixup=settings.mixup, average=average, gradient_scaler=scaler, world=world,
            compute=ComputeConfig(
                computed, settings.compile, settings.micro_batches, auto_split=settings.accumulate == "auto"
            ),
        )  # fmt: skip
    return kept, history
