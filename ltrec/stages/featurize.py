"""Push every image through the backbone once a view; all that follows works on the features."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ltrec import artifacts, console, tracking
from ltrec.errors import UserError
from ltrec.settings import Count, PositiveInt, Settings

if TYPE_CHECKING:
    from ltrec.artifacts import Split
    from ltrec.augment import View
    from ltrec.network import Network
    from ltrec.params import Params

# Seeds of the bank's views: apart from those of the training epochs.
_VIEW_STREAM = 1 << 32


class FeaturizeSettings(Settings):
    """What the feature bank holds."""

    views: Count = 4
    """Augmented views of each training image beside the plain one; with them a classifier learns from features as it
    would from images."""
    batch_size: PositiveInt = 256
    workers: Count | None = None
    """Processes that decode; null: none for small images, else one a core."""


def run(params: Params) -> None:
    """Write the feature banks of train, val and test."""
    from ltrec import checkpoints
    from ltrec import device as devices
    from ltrec import network as networks

    layout = artifacts.Layout()
    device = devices.resolve(params.device)
    devices.make_deterministic(params.seed)
    with tracking.stage_run(params, "featurize") as record:
        record.params({"featurize": params.featurize.model_dump(mode="json")})
        network = networks.load(layout.model, classes=layout.classes)
        representation = artifacts.digest(layout.model)
        # This stage starts when DVC has the network: the training that made it need not be resumed any more.
        checkpoints.sweep("represent", taken=representation)
        with devices.memory_for(
            f"{params.featurize.batch_size} images at a time",
            where="params.yaml: featurize.batch_size", instead="a smaller one may fit",
        ):  # fmt: skip
            network = networks.on_device(network, device)
            made_from = {"representation": representation, "classes": artifacts.digest(layout.classes)}
            for split in artifacts.SPLITS:
                _write_bank(params, network, split, made_from | {"split": split})


def _write_bank(params: Params, network: Network, split: Split, header: dict[str, str]) -> None:
    from ltrec import features, training
    from ltrec.data.lists import read_classes, read_list
    from ltrec.loading import Batches, Images, view_seeds

    layout, settings = artifacts.Layout(), params.featurize
    listed = read_list(layout.split_list(split), len(read_classes(layout.classes)), unknown=split != "train")
    root, count = Path(params.prepare.source.root), len(listed.paths)
    pin = next(network.parameters()).is_cuda

    def batches(view: View | None) -> Batches:
        images = Images(root, listed.paths, network.geometry, view)
        return Batches(images, settings.batch_size, settings.workers, pin=pin)

    views = 1 + (settings.views if split == "train" else 0)
    plain = batches(None)
    augmented = batches(params.represent.augment.build(network.geometry)) if views > 1 else plain
    order = np.arange(count)
    with (
        features.writing(
            layout.features(split), listed.labels, views=views, dim=network.head.dim, header=header
        ) as bank,
        console.progress(f"featurize: {split} images", views * count) as advance,
    ):
        for view in range(views):
            loader, seeds = (augmented, view_seeds(params.seed, _VIEW_STREAM + view, count)) if view else (plain, order)
            for images, index in loader.epoch(order, seeds, drop_last=False):
                given = training.predict_features(network, images).numpy()
                if not np.isfinite(given).all():
                    raise UserError(
                        f"its features of {split} images are not finite: it is damaged, or its training diverged;"
                        " delete it and run `dvc repro` with a lower represent.optimizer.lr",
                        where=str(layout.model),
                    )
                bank[view, index.numpy()] = given
                advance(len(index))
    console.say(
        f"featurize: {count} {split} images, {views} view(s) of {network.head.dim} features → {layout.features(split)}"
    )
