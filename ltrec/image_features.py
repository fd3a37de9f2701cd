"""Features made anew in each epoch: augmented images through the frozen network, as in the paper."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ltrec import training
from ltrec.features import FeatureBank
from ltrec.loading import Batches, Images, view_seeds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from ltrec.augment import View
    from ltrec.network import Network

# Seeds of these views: apart from those of the representation's epochs and of the feature bank's views.
_VIEW_STREAM = 2 << 32


@dataclass(frozen=True)
class ImageFeatures(FeatureBank):
    """A feature bank that is not trained on: its batches come from the images themselves.

    Attributes:
        network: In evaluation mode, so that batch norm takes and keeps the statistics of the representation's training.
        loader: Augmented images; row i of the bank is image i.
        on_images: Called with the number of images done.
    """

    network: Network
    loader: Batches
    on_images: Callable[[int], None]

    @classmethod
    def of(
        cls,
        bank: FeatureBank,
        network: Network,
        files: tuple[Path, Sequence[str]],
        view: View,
        *,
        batch_size: int,
        workers: int | None,
        on_images: Callable[[int], None],
    ) -> ImageFeatures:
        """The images behind a bank.

        Args:
            bank: On any device; its features stay there.
            network: On the device where the head is trained, in evaluation mode.
            files: The source's root, and a path in it for each row of the bank.
            view: Gives the training view for (image, seed).
            batch_size: B.
            workers: Processes that decode; None: none for small images, else one a core.
            on_images: Called with the number of images done.

        Raises:
            UserError: an image cannot be read.
        """
        assert not network.training, "a frozen network is in evaluation mode"
        labels = bank.labels.to(next(network.parameters()).device)
        loader = Batches(Images(*files, network.geometry, view), batch_size, workers, pin=labels.is_cuda)
        return cls(bank.features, labels, bank.header, network, loader, on_images)

    def batches(self, drawn: NDArray[np.int64], size: int, *, epoch: int, seed: int) -> Iterator[Tensor]:
        """As the bank's, but of a new random view of each image drawn.

        Raises:
            UserError: an image cannot be read.
        """
        seeds = view_seeds(seed, _VIEW_STREAM + epoch, len(drawn))
        for images, index in self.loader.epoch(drawn, seeds, drop_last=True):
            assert len(index) == size, "the loader's batches are those of the training"
            features = training.predict_features(self.network, images).to(self.labels.device)
            yield features.clone()  # what inference mode made cannot be trained on
            self.on_images(size)
