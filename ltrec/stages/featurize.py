"""Push every image through the backbone once a view; all that follows works on the features."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ltrec import artifacts, console, tracking
from ltrec.errors import UserError
from ltrec.stages import recording

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from ltrec.artifacts import Split
    from ltrec.compute.distributed import World
    from ltrec.compute.precision import Precision
    from ltrec.config.params import Params
    from ltrec.models.network import Network

# Seeds of the bank's views: apart from those of the training epochs.
_VIEW_STREAM = 1 << 32


def run(params: Params, *, profile: bool = False) -> None:
    """Write the feature banks of train, val and test.

    Args:
        params: The parameters.
        profile: Write where the time goes.
    """
    from ltrec import profiling
    from ltrec.compute import device as devices
    from ltrec.compute import distributed

    device = devices.resolve(params.device)
    devices.make_deterministic(params.seed)
    with distributed.joined(device) as world, profiling.recording("featurize", device, wanted=profile and world.first):
        _run(params, device, world)


def _run(params: Params, device: torch.device, world: World) -> None:
    from ltrec.compute import device as devices
    from ltrec.compute import precision
    from ltrec.models import network as networks
    from ltrec.training import resume

    layout = artifacts.Layout()
    with recording.stage_run(params, "featurize") if world.first else contextlib.nullcontext(tracking.Run()) as record:
        record.params({"featurize": params.featurize.model_dump(mode="json")})
        network = networks.load(layout.model, classes=layout.classes)
        representation = artifacts.digest(layout.model)
        if world.first:
            # This stage starts when DVC has the network: the training that made it need not be resumed any more.
            resume.sweep("represent", taken=representation)
        with devices.memory_for(
            f"{params.featurize.batch_size} images at a time",
            where="params.yaml: featurize.batch_size", instead="a smaller one may fit",
        ):  # fmt: skip
            network = networks.on_device(network, device)
            computed = precision.resolve(params.represent.precision, device)
            made_from = {"representation": representation, "classes": artifacts.digest(layout.classes)}
            for split in artifacts.SPLITS:
                _write_bank(params, network, split, made_from | {"split": split}, computed, world)


def _write_bank(
    params: Params, network: Network, split: Split, header: dict[str, str], computed: Precision, world: World
) -> None:
    from ltrec import profiling
    from ltrec.data.image_lists import read_classes, read_list
    from ltrec.data.images.device_loader import DeviceLoader, training_loader
    from ltrec.models import network as networks
    from ltrec.rebalancing import feature_bank as features

    layout, settings = artifacts.Layout(), params.featurize
    listed = read_list(layout.split_list(split), len(read_classes(layout.classes)), unknown=split != "train")
    root, count = Path(params.prepare.source.root), len(listed.paths)
    device, size = next(network.parameters()).device, settings.batch_size

    views = 1 + (settings.views if split == "train" else 0)
    files, geometry, workers = (root, listed.paths), network.geometry, settings.workers
    loaders = [DeviceLoader(files, geometry, device, size, workers=workers, world=world, several_epochs=False)]
    if views > 1:
        augment = params.represent.augment.build()
        augmented = training_loader(files, geometry, device, size, augment=augment, workers=workers, world=world)
        loaders += [augmented] * (views - 1)
    order = np.arange(count)
    opened = features.writing(layout.features(split), listed.labels, views=views, dim=network.head.dim, header=header)
    with (
        opened if world.first else contextlib.nullcontext() as bank,
        console.progress(f"featurize: {split} images", views * count) as advance,
    ):
        for view, source in enumerate(loaders):
            batches = profiling.waiting(
                source.epoch(order, (params.seed, _VIEW_STREAM + view), drop_last=False), "loading"
            )
            for start, (images, _) in zip(range(0, count, size), batches, strict=True):
                rows = slice(start, min(start + size, count))
                with profiling.span("forward"):
                    given = world.gather(networks.predict_features(network, images, computed), rows.stop - start)
                if bank is not None and given is not None:
                    with profiling.span("writing"):
                        bank[view, rows] = _finite(given.cpu().numpy(), split)
                advance(rows.stop - start)
                profiling.step()
    console.say(
        f"featurize: {count} {split} images, {views} view(s) of {network.head.dim} features → {layout.features(split)}"
    )


def _finite(given: NDArray[np.float32], split: Split) -> NDArray[np.float32]:
    if not np.isfinite(given).all():
        raise UserError(
            f"its features of {split} images are not finite: it is damaged, or its training diverged; delete it and run"
            " `dvc repro` with a lower represent.optimizer.lr",
            where=str(artifacts.Layout().model),
        )
    return given
