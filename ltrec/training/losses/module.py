"""The module that computes any loss, class weights and mixed targets included. B images, C classes."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ltrec.training.mixing import MixedTargets

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from ltrec.training.mixing import Targets


class LossModule(nn.Module):
    """Adds up a loss over the images of a batch; until it is told of an epoch, as in the first of a training.

    Args:
        per_image: From logits (B, C), labels (B,) and the constants to the loss of each image, (B,).
        constants: What the formula takes from the class counts, by name; buffers of this module.
        class_weights: What each class's loss is multiplied by, (C,); None: by nothing.
        weights_start: The share of the epochs, below 1, after which the class weights begin to count.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        per_image: Callable[..., Tensor],
        constants: Mapping[str, NDArray[np.float64]],
        class_weights: NDArray[np.float64] | None = None,
        weights_start: float = 0.0,
    ) -> None:
        super().__init__()
        self._per_image, self._constants = per_image, tuple(constants)
        for name, values in constants.items():
            self.register_buffer(name, torch.from_numpy(values).float())
        weights = None if class_weights is None else torch.from_numpy(class_weights).float()
        self.register_buffer("class_weights", weights)
        self._weights_start = weights_start
        self._weighted = weights_start == 0

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """Compute from now on as in an epoch, counted from 0, of a training of `epochs`; nothing else is remembered.

        Class weights count from the epoch on in which their start lies, and so always in the last one.
        """
        # As decimals, 0.29 of 100 epochs are 29; as binary fractions they are less.
        self._weighted = epoch >= int(Decimal(str(self._weights_start)) * epochs)

    def forward(self, logits: Tensor, targets: Targets) -> Tensor:
        """Return the sum of the images' losses, (), for logits (B, C) and targets (B,).

        The loss of a mixed image is that for each of its two labels, weighted by their shares.
        """
        logits = logits.float()
        if not isinstance(targets, MixedTargets):
            return self._losses(logits, targets).sum()
        labels, others, shares = targets
        return torch.lerp(self._losses(logits, others), self._losses(logits, labels), shares).sum()

    def _losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        losses = self._per_image(logits, labels, **{name: self.get_buffer(name) for name in self._constants})
        return losses if self.class_weights is None or not self._weighted else losses * self.class_weights[labels]
