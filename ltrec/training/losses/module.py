"""The module that computes any loss, mixed targets included. B images, C classes."""

from __future__ import annotations

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
    """Adds up a loss over the images of a batch.

    Args:
        per_image: From logits (B, C), labels (B,) and the constants to the loss of each image, (B,).
        constants: What the formula takes from the class counts, by name; buffers of this module.
    """

    def __init__(self, per_image: Callable[..., Tensor], constants: Mapping[str, NDArray[np.float64]]) -> None:
        super().__init__()
        self._per_image = per_image
        for name, values in constants.items():
            self.register_buffer(name, torch.from_numpy(values).float())

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
        return self._per_image(logits, labels, **dict(self.named_buffers()))
