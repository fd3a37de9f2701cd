"""Features made anew in each epoch: augmented images through the frozen network, as in the paper."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ltrec.models import network as networks
from ltrec.rebalancing.feature_bank import FeatureBank

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from ltrec.compute.precision import Precision
    from ltrec.data.images.device_loader import DeviceLoader
    from ltrec.models.network import Network

# A part of the seed that keeps these views apart from those of the representation's epochs and of the feature bank.
_VIEW_STREAM = 2 << 32


@dataclass(frozen=True)
class ImageFeatures(FeatureBank):
    """A feature bank that is not trained on: its batches come from the images themselves.

    Attributes:
        network: The frozen network, in evaluation mode, so that batch norm keeps and uses its statistics.
        loader: Augmented images by the bank's rows, as many at a time as the head is trained with.
        precision: The precision of the network's arithmetic.
        on_images: Called with the number of images done.
    """

    precomputed: ClassVar[bool] = False

    network: Network
    loader: DeviceLoader
    precision: Precision
    on_images: Callable[[int], None]

    @classmethod
    def of(
        cls,
        bank: FeatureBank,
        network: Network,
        loader: DeviceLoader,
        *,
        precision: Precision = "fp32",
        on_images: Callable[[int], None],
    ) -> ImageFeatures:
        """Return the images behind a bank on any device; its labels are moved to the network's, its features stay."""
        assert not network.training, "a frozen network is in evaluation mode"
        labels = bank.labels.to(next(network.parameters()).device)
        return cls(bank.features, labels, bank.header, network, loader, precision, on_images)

    def batches(self, drawn: NDArray[np.int64], size: int, *, epoch: int, seed: int) -> Iterator[Tensor]:
        """Yield features as the bank does, but of a new random view of each image drawn.

        Raises:
            UserError: An image cannot be read.
        """
        for images, rows in self.loader.epoch(drawn, (seed, _VIEW_STREAM + epoch), drop_last=True):
            assert len(rows) == size, "the loader's batches are those of the training"
            # Inference mode made them, and such tensors cannot be trained on.
            yield networks.predict_features(self.network, images, self.precision).clone()
            self.on_images(size)
