"""Learn the representation, backbone and joint classifier, or keep a backbone as it is."""

from __future__ import annotations

import contextlib
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ltrec import artifacts, console, pipeline, profiling, tracking
from ltrec.artifacts import Layout
from ltrec.compute import device as devices
from ltrec.compute import distributed, precision
from ltrec.data.image_lists import read_classes, read_list
from ltrec.data.images.dataset import killed_worker_explained
from ltrec.data.images.device_loader import DeviceLoader, training_loader
from ltrec.data.images.path_list import compact
from ltrec.errors import UserError
from ltrec.models import heads
from ltrec.models import network as networks
from ltrec.stages import recording
from ltrec.training import resume as resuming
from ltrec.training.labelled_loader import LabelledLoader
from ltrec.training.loop import moving_average
from ltrec.training.session import BATCH_NORM, Session
from ltrec.training.statistics import trained_norms
from ltrec.training.step import ComputeConfig

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    import torch
    from numpy.typing import NDArray

    from ltrec.compute.distributed import World
    from ltrec.compute.precision import Precision
    from ltrec.config.params import Params
    from ltrec.config.represent import RepresentSettings
    from ltrec.models.network import Network
    from ltrec.models.preprocessing import Preprocessing

# What changes nothing of what is learnt. The number of processes does (batch norm, dropout), but a training may go on
# with as many as there are.
_INDECISIVE = {"workers", "compile"}


@killed_worker_explained()
def run(params: Params, *, profile: bool = False) -> None:
    """Train, going on from the last finished epoch of an interrupted training of the same thing.

    With `epochs: 0` nothing is trained: the backbone is written as it begins, without a classifier.

    Args:
        params: The parameters.
        profile: Whether to write where the time goes.
    """
    device = devices.resolve(params.device)
    with (
        devices.repeatable(params.seed, params.deterministic),
        precision.exact_float32(),
        distributed.joined(device) as world,
        profiling.recording("represent", device, wanted=profile and world.first),
    ):
        recorded = recording.stage_run(params, "represent") if world.first else contextlib.nullcontext(tracking.Run())
        if params.represent.epochs:
            _represent(params.represent, Path(params.prepare.source.root), params.seed, device, world, recorded)
        elif world.first:
            _keep(params.represent, params.seed, recorded)


def _keep(settings: RepresentSettings, seed: int, recorded: AbstractContextManager[tracking.Run]) -> None:
    """Write the backbone as it is, and learning curves of no epochs."""
    layout, weights = Layout(), settings.backbone.weights
    origin = _origin(settings, seed)
    with recorded as record:
        image = settings.preprocessing()
        _record_settings(record, settings, image, origin)
        classes = read_classes(layout.classes)
        network = networks.build(settings.backbone, image.geometry, image.mean, image.std, len(classes), settings.head)
        network.head = heads.UnfittedHead(len(classes), network.head.dim)
        artifacts.write_csv(layout.history, [], artifacts.HISTORY)
        _save(network, layout, settings, origin)
        record.file(layout.history)
    if weights is None:
        console.warn(
            "params.yaml: represent.backbone.weights: null with epochs: 0 keeps a random backbone, which has learnt"
            " nothing; pretrained weights are meant?"
        )
    console.say(
        f"represent: {settings.backbone.name}, {network.head.dim} features, kept as it is (epochs: 0) → {layout.model}"
    )


def _origin(settings: RepresentSettings, seed: int) -> dict[str, Any]:
    """Return what a network's header says of where its weights come from.

    Raises:
        UserError: There is no such file of weights.
    """
    weights = settings.backbone.digest()
    return {"seed": seed} | ({} if weights is None else {"weights_sha256": weights})


def _represent(
    settings: RepresentSettings,
    root: Path,
    seed: int,
    device: torch.device,
    world: World,
    recorded: AbstractContextManager[tracking.Run],
) -> None:
    layout = Layout()
    classes = read_classes(layout.classes)
    train = compact(read_list(layout.split_list("train"), len(classes)))
    val = compact(read_list(layout.split_list("val"), len(classes), unknown=True).known())
    batch_size = min(settings.batch_size, len(train))
    _require_two_images_each(batch_size, settings.micro_batches, world)
    computed = precision.resolve(settings.precision, device, where="params.yaml: represent.precision")
    origin = _origin(settings, seed)
    decisive = settings.model_dump(mode="json", exclude=_INDECISIVE) | {"precision": computed}
    inputs = [layout.split_digest("train"), layout.split_digest("val")]
    inputs += [layout.cache_list] if layout.cache_list.is_file() else []
    code = pipeline.code_digest("represent")
    key = artifacts.digest(decisive, origin, device.type, code, *inputs)
    resume = resuming.ResumeFolder("represent", key) if world.first else None
    with resume or contextlib.nullcontext(), recorded as record:
        if resume is not None:
            resuming.sweep("represent")
        image = settings.preprocessing()
        facts = {"device": device.type, "processes": world.size, "precision": computed}
        _record_settings(record, settings, image, facts | origin)
        network = networks.build(settings.backbone, image.geometry, image.mean, image.std, len(classes), settings.head)
        with devices.memory_for(
            f"{settings.batch_size} images at a time",
            where="params.yaml: represent.batch_size", instead="a smaller one may fit",
        ):  # fmt: skip
            network = networks.on_device(network, device)
            if settings.sync_batch_norm and world.size > 1:
                network = networks.synchronised(network)
            size, workers = settings.batch_size, settings.workers
            augmented = training_loader(
                (root, train.paths), network.geometry, device, batch_size,
                augment=settings.augment.build(image.mean, image.std), workers=workers, world=world,
            )  # fmt: skip
            plain = DeviceLoader((root, val.paths), network.geometry, device, size, workers=workers, world=world)
            session = _session(settings, network, train.labels, batch_size, seed, computed, world)
            if settings.optimizer.sam_rho is not None:
                console.say(
                    "represent: with sam_rho each update computes two gradients, and an epoch takes twice as long"
                )
            shown, judged = (LabelledLoader(*of, device) for of in ((augmented, train.labels), (plain, val.labels)))
            history = session.run(
                shown, judged, resume=resume, on_rows=lambda rows: record.history(rows, "represent")
            )  # fmt: skip
            reached = history[-1]["val"]
            if (norms := settings.batch_norm) is not None:
                sampler = norms.sampler.build(train.labels, seed=seed, epochs=norms.epochs)
                reached = session.reestimate(shown, sampler, norms.epochs, judged)
        if resume is None:
            return
        artifacts.write_csv(layout.history, history)
        _save(session.kept.cpu(), layout, settings, origin)
        record.file(layout.history)
        # The checkpoint stays: a kill before DVC has the network must not cost the training; `featurize` discards it.
        resume.finish(artifacts.digest(layout.model))
    console.say(
        f"represent: {settings.backbone.name}, {network.head.dim} features,"
        f" {reached:.1%} balanced accuracy on val → {layout.model}"
    )


def _require_two_images_each(images: int, micro_batches: int, world: World) -> None:
    """Refuse what batch norm cannot work on: fewer than two images at a time."""
    if images // world.size < 2 * micro_batches:
        raise UserError(
            f"{images} images an update leave fewer than two for each of {world.size} process(es),"
            f" {micro_batches} micro-batch(es)",
            where="params.yaml: represent.batch_size" + (", represent.accumulate" if micro_batches > 1 else ""),
        )


def _record_settings(
    record: tracking.Run, settings: RepresentSettings, image: Preprocessing, facts: dict[str, Any]
) -> None:
    """Record the settings, and say where images will not look as those that the pretrained weights were trained on."""
    record.params({"represent": settings.model_dump(mode="json") | {"image": image.settings()}} | facts)
    published = settings.backbone.preprocessing()
    if published is not None and (differing := settings.image.differing(published)):
        weights = f"{settings.backbone.name}'s {settings.backbone.weights}"
        console.say(f"represent: images not as for {weights}: {'; '.join(differing)}")


def _save(network: Network, layout: Layout, settings: RepresentSettings, origin: dict[str, Any]) -> None:
    """Write the network with what its header says of its backbone, its origin, its classes and its images."""
    task = {"classes": layout.classes, "images": layout.split_digest("train")}
    header = origin | {name: artifacts.digest(file) for name, file in task.items()}
    networks.save(network, layout.model, backbone=settings.backbone, header=header)


def _freezing(settings: RepresentSettings, network: Network, world: World) -> Callable[[int], list[str]] | None:
    """Freeze what never trains, and return what gives the parts that are frozen in an epoch; None: none ever is.

    Raises:
        UserError: What is to be frozen is not there, or parts are to be unfrozen by several processes.
    """
    if settings.freeze is None:
        return None
    if world.size > 1 and settings.freeze.changes:
        raise UserError(
            f"not with {world.size} processes, which agree once and for all on what trains; allowed here: null",
            where="params.yaml: represent.freeze.unfreeze_every",
        )
    frozen = functools.partial(settings.freeze.frozen, network.backbone)
    network.freeze(frozen(settings.epochs - 1))
    return frozen


def _session(
    settings: RepresentSettings,
    network: Network,
    labels: NDArray[np.int64],
    batch_size: int,
    seed: int,
    computed: Precision,
    world: World,
) -> Session:
    """Return the training that the settings ask for, with everything built."""
    device, epochs, steps = next(network.parameters()).device, settings.epochs, len(labels) // batch_size
    counts = np.bincount(labels, minlength=network.head.classes)
    try:
        loss = settings.loss.build(counts, network.head.cosine_scale).to(device)
    except UserError as error:
        raise UserError(error.what, where="params.yaml: represent.loss") from None
    sampler, mix = settings.sampler.build(labels, seed=seed, epochs=epochs), settings.mix
    if mix is not None:
        sampler = mix.draws(sampler, labels, batch_size=batch_size, seed=seed, epochs=epochs)
    # The optimizer has what trains in the last epoch; what is frozen until then gets no gradient, and is left alone.
    frozen_in = _freezing(settings, network, world)
    if settings.batch_norm is not None and not trained_norms(network.train()):
        raise UserError("no batch norm of this network trains; allowed here: null", where=BATCH_NORM)
    optimizer = settings.optimizer.build(network.backbone, network.head)
    return Session(
        network, loss, sampler, optimizer,
        schedule=settings.schedule.build(optimizer, epochs=epochs, steps=steps),
        gradient_scaler=precision.scaler(computed, device),
        average=None if settings.ema is None else moving_average(network, settings.ema.decay),
        epochs=epochs, batch_size=batch_size, steps=steps, seed=seed,
        frozen_in=frozen_in, clip_norm=settings.clip_norm, sam_rho=settings.optimizer.sam_rho,
        constrain=settings.optimizer.constraint(network.head), mix=None if mix is None else mix.build(epochs),
        world=world,
        compute=ComputeConfig(
            computed, settings.compile, settings.micro_batches, auto_split=settings.accumulate == "auto"
        ),
    )  # fmt: skip
