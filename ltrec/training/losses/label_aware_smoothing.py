"""Label-aware smoothing. B images, C classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from ltrec.settings import Fraction
from ltrec.training.losses.base import Loss, require_images

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from ltrec.training.losses.base import Constants


class LabelAwareSmoothing(Loss):
    """Cross-entropy whose targets are smoothed the more, the more images their class has (MiSLAS).

    Networks are too sure of frequent classes above all. It does not make up for uneven classes: MiSLAS has it on
    class-balanced draws (Zhong et al. 2021). As in its code, and as `label_smoothing` does, ε is spread
    over all classes, the own one included.
    """

    name: Literal["label_aware_smoothing"]
    head: Fraction = 0.3
    """ε of the class with the most images."""
    tail: Fraction = 0.0
    """ε of the class with the fewest."""

    def constants(self, class_counts: NDArray[np.int64]) -> Constants:
        """Return ε, (C,): tail + (head − tail)·sin[π(n − n_min) / (2(n_max − n_min))], and head where n_max = n_min."""
        require_images(class_counts, "its smoothing follows from how many there are")
        rarest, spread = class_counts.min(), np.ptp(class_counts)
        place = (class_counts - rarest) / spread if spread else np.ones(len(class_counts))
        return {"smoothing": self.tail + (self.head - self.tail) * np.sin(np.pi / 2 * place)}

    def per_image(self, logits: Tensor, labels: Tensor, smoothing: Tensor) -> Tensor:  # type: ignore[override]
        """Return −(1 − ε_y)·log p_y − ε_y·mean_j log p_j of each image, (B,), for p = softmax(z)."""
        log_p = logits.log_softmax(dim=1)
        own, share = log_p.gather(1, labels[:, None])[:, 0], smoothing[labels]
        return -(1 - share) * own - share * log_p.mean(dim=1)
