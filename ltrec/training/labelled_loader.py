"""Batches of images on the device with their labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from ltrec.data.images.device_loader import DeviceLoader

    Batch = tuple[torch.Tensor, torch.Tensor]


class LabelledLoader:
    """A device loader that gives labels in place of indices.

    Args:
        loader: Gives the images.
        labels: The label of each image in its list, (N,).
        device: Where the labels are wanted.
    """

    def __init__(self, loader: DeviceLoader, labels: NDArray[np.int64], device: torch.device) -> None:
        self._loader = loader
        self._labels = torch.from_numpy(labels).to(device)

    def epoch(self, indices: NDArray[np.int64], key: tuple[int, ...]) -> Iterator[Batch]:
        """Yield the full batches of an epoch, images (b, H, W, 3) and labels (b,), as `DeviceLoader.epoch` does."""
        for images, index in self._loader.epoch(indices, key, drop_last=True):
            yield images, self._labels[index]

    def once(self) -> Iterator[Batch]:
        """Yield every image once, in the order of the list."""
        for images, index in self._loader.once():
            yield images, self._labels[index]
