"""Push every image through the backbone once a view; all that follows works on the features."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ltrec import artifacts, console, profiling, tracking
from ltrec.artifacts import SPLITS, Layout
from ltrec.compute import device as devices
from ltrec.compute import distributed, precision
from ltrec.data.image_lists import read_classes, read_list
from ltrec.data.images.device_loader import DeviceLoader, training_loader
from ltrec.errors import UserError
from ltrec.models import network as networks
from ltrec.rebalancing import feature_bank
from ltrec.stages import recording
from ltrec.training import resume

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from numpy.typing import NDArray

    from ltrec.artifacts import Split
    from ltrec.compute.distributed import World
    from ltrec.compute.precision import Precision
    from ltrec.config.params import Params
    from ltrec.data.images.augmentation import Augment
    from ltrec.data.images.decoding import Geometry
    from ltrec.models.network import Network

# Seeds of the bank's views: apart from those of the training epochs.
_VIEW_STREAM = 1 << 32


def run(params: Params, *, profile: bool = False) -> None:
    """Write the feature banks of train, val and test.

    Args:
        params: The parameters.
        profile: Whether to write where the time goes.
    """
    device, settings, root = devices.resolve(params.device), params.featurize, Path(params.prepare.source.root)
    devices.make_deterministic(params.seed)
    layout = Layout()
    with (
        distributed.joined(device) as world,
        profiling.recording("featurize", device, wanted=profile and world.first),
        recording.stage_run(params, "featurize") if world.first else contextlib.nullcontext(tracking.Run()) as record,
    ):
        record.params({"featurize": settings.model_dump(mode="json")})
        network = networks.load(layout.model, classes=layout.classes)
        representation = artifacts.digest(layout.model)
        if world.first:
            # This stage starts when DVC has the network: the training that made it need not be resumed any more.
            resume.sweep("represent", taken=representation)
        with devices.memory_for(
            f"{settings.batch_size} images at a time",
            where="params.yaml: featurize.batch_size", instead="a smaller one may fit",
        ):  # fmt: skip
            network = networks.on_device(network, device)
            computed = precision.resolve(params.represent.precision, device)
            made_from = {"representation": representation, "classes": artifacts.digest(layout.classes)}
            augment, classes = params.represent.augment.build(), len(read_classes(layout.classes))
            for split in SPLITS:
                listed = read_list(layout.split_list(split), classes, unknown=split != "train")
                loaders = _loaders(
                    (root, listed.paths), network.geometry, device, settings.batch_size, settings.workers, world,
                    augment=augment, augmented_views=settings.views if split == "train" else 0,
                )  # fmt: skip
                views, dim, path = len(loaders), network.head.dim, layout.features(split)
                writing = feature_bank.writing(
                    path, listed.labels, views=views, dim=dim, header=made_from | {"split": split}
                )
                with writing if world.first else contextlib.nullcontext() as bank:
                    _fill(bank, loaders, network, computed, split, len(listed), settings.batch_size, params.seed, world)
                console.say(f"featurize: {len(listed)} {split} images, {views} view(s) of {dim} features → {path}")


def _loaders(
    files: tuple[Path, Sequence[str]],
    geometry: Geometry,
    device: torch.device,
    size: int,
    workers: int | None,
    world: World,
    *,
    augment: Augment,
    augmented_views: int,
) -> list[DeviceLoader]:
    """Return a loader for each view of the images: the plain one, then the augmented ones."""
    plain = DeviceLoader(files, geometry, device, size, workers=workers, world=world, several_epochs=False)
    if not augmented_views:
        return [plain]
    augmented = training_loader(files, geometry, device, size, augment=augment, workers=workers, world=world)
    return [plain, *[augmented] * augmented_views]


def _fill(
    bank: NDArray[np.float32] | None,
    loaders: Sequence[DeviceLoader],
    network: Network,
    computed: Precision,
    split: Split,
    count: int,
    size: int,
    seed: int,
    world: World,
) -> None:
    """Write the features of a split's images under each loader's view; the first rank alone has a bank to fill."""
    order = np.arange(count)
    with console.progress(f"featurize: {split} images", len(loaders) * count) as advance:
        for view, loader in enumerate(loaders):
            batches = loader.epoch(order, (seed, _VIEW_STREAM + view), drop_last=False)
            starts = range(0, count, size)
            for start, (images, _) in zip(starts, profiling.waiting(batches, "loading"), strict=True):
                rows = slice(start, min(start + size, count))
                with profiling.span("forward"):
                    features = world.gather(networks.predict_features(network, images, computed), rows.stop - start)
                if bank is not None and features is not None:
                    with profiling.span("writing"):
                        bank[view, rows] = _finite(features.cpu().numpy(), split)
                advance(rows.stop - start)
                profiling.step()


def _finite(features: NDArray[np.float32], split: Split) -> NDArray[np.float32]:
    if not np.isfinite(features).all():
        raise UserError(
            f"its features of {split} images are not finite: it is damaged, or its training diverged; delete it and run"
            " `dvc repro` with a lower represent.optimizer.lr",
            where=str(Layout().model),
        )
    return features
