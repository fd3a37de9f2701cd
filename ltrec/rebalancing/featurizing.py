"""Filling a feature bank: every image through the backbone once a view.

V views, N images, D feature dimensions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ltrec import console, profiling
from ltrec.artifacts import Layout
from ltrec.data.images.device_loader import DeviceLoader, training_loader
from ltrec.errors import UserError
from ltrec.models import network as networks

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import torch
    from numpy.typing import NDArray

    from ltrec.artifacts import Split
    from ltrec.compute.distributed import World
    from ltrec.compute.precision import Precision
    from ltrec.data.images.augmentation import Augment
    from ltrec.data.images.decoding import Geometry
    from ltrec.models.network import Network

# Seeds of the bank's views: apart from those of the training epochs.
_VIEW_STREAM = 1 << 32


def view_loaders(
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


def fill(
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
    """Fill a bank with the features of a split's images under each loader's view.

    Args:
        bank: The features to fill in, (V, N, D); None on all ranks but the first.
        loaders: The images under each of the V views, in batches of `size` of all ranks together.
        network: In evaluation mode, on its device.
        computed: The precision of the network's arithmetic.
        split: The split, for messages.
        count: N.
        size: Images in a batch.
        seed: Seed of the augmented views.
        world: The processes that share the batches.

    Raises:
        UserError: A feature is not finite, or an image cannot be read.
    """
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
