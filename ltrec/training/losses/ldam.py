"""The label-distribution-aware margin loss, LDAM. B images, C classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from ltrec.training.losses.base import Loss, require_images

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from ltrec.training.losses.base import Constants


class Ldam(Loss):
    """Cross-entropy of s·(cos θ_j − m_j·[j = y]): a rare class must win by more (Cao et al. 2019).

    Predictions are by s·cos θ alone. With `class_weights: {start: 0.8}` it is LDAM-DRW.
    """

    name: Literal["ldam"]
    corrects_prior: ClassVar[bool] = True
    of_cosines: ClassVar[bool] = True
    max_margin: Annotated[float, Field(ge=0, le=2)] = 0.5
    """The margin of the rarest class, as a difference of cosines; others have it times (n_min/n_j)^¼."""
    twice: bool = False
    """Allow it on draws that are balanced already, where it corrects a second time."""

    def constants(self, class_counts: NDArray[np.int64]) -> Constants:
        """Return the margins m, (C,)."""
        require_images(class_counts, "its margin would have no bound")
        return {"margins": self.max_margin * (class_counts.min() / class_counts) ** 0.25}

    def per_image(self, logits: Tensor, labels: Tensor, margins: Tensor, scale: Tensor) -> Tensor:  # type: ignore[override]
        """Return −log softmax(z − s·m_y·[j = y])_y of each image, (B,), for logits z = s·cos θ and s, ()."""
        import torch.nn.functional as F

        own = F.one_hot(labels, logits.shape[1])
        return F.cross_entropy(logits - scale * margins * own, labels, reduction="none")
