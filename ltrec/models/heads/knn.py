"""The head of the nearest neighbours. n images, N exemplars, D feature dimensions, C classes."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ltrec.models.heads.base import Head
from ltrec.models.heads.nearest_mean import TINY

# Distances of so many images to all exemplars are held at once.
_IMAGES_AT_ONCE = 256
# A vote that each class has, so that the logarithm is finite; and the share of the mean distance to the center that is
# added to a distance before it divides, so that copies of one image do no harm.
_FLOOR, _MARGIN = 0.2, 1e-3


class KnnHead(Head):
    """Lets the k nearest training images vote, by cosine: logits are log(a_j·v_j + 0.2).

    v_j is the sum of exp(t_i / s) − 1 over the neighbours i of class j, and t_i = (d − d_i) / (d + a little) tells how
    much nearer than the (k + 1)th the neighbour is: d_i = 1 − cos_i, and d is that of the (k + 1)th. A vote falls to 0
    there: who comes in as another one goes changes nothing at once, and a rounding of the distances remains a rounding
    of the logits, so that PyTorch and onnxruntime agree.

    Args:
        exemplars: The training images' features, each of length 1 and then less the center, (N, D).
        center: A vector near the mean of those of length 1, (D,). No distance depends on it; but where all cosines are
            nearly 1, their differences would be lost in rounding without it.
        labels: The exemplars' classes, (N,).
        class_weights: a, (C,).
        neighbours: k, below N.
        sharpness: s; the smaller, the more the nearest of the neighbours count.
    """

    kind = "knn"
    exemplars: Tensor
    center: Tensor
    labels: Tensor
    class_weights: Tensor

    def __init__(
        self,
        exemplars: Tensor,
        center: Tensor,
        labels: Tensor,
        class_weights: Tensor,
        *,
        neighbours: int,
        sharpness: float,
    ) -> None:
        super().__init__(len(class_weights), exemplars.shape[1])
        self.neighbours, self.sharpness = neighbours, sharpness
        self.register_buffer("exemplars", exemplars)
        self.register_buffer("center", center)
        self.register_buffer("labels", labels)
        self.register_buffer("class_weights", class_weights)

    def options(self) -> dict[str, Any]:
        return {"neighbours": self.neighbours, "sharpness": self.sharpness}

    def scores(self, features: Tensor) -> Tensor:
        from_center = self.exemplars.square().sum(dim=1) / 2
        if torch.compiler.is_exporting():  # the size of the batch is not known then
            return self._scores(features, from_center)
        return torch.cat([self._scores(block, from_center) for block in torch.split(features, _IMAGES_AT_ONCE)])

    def _scores(self, features: Tensor, from_center: Tensor) -> Tensor:
        distances, indices = nearest(features, self.exemplars, self.center, from_center, self.neighbours + 1)
        classes = self.labels[indices]
        return vote(
            distances, classes, self.class_weights, from_center.mean(),
            neighbours=self.neighbours, sharpness=self.sharpness,
        )  # fmt: skip


def nearest(
    features: Tensor, exemplars: Tensor, center: Tensor, from_center: Tensor, count: int
) -> tuple[Tensor, Tensor]:
    """Return the distances 1 − cos of the nearest exemplars, the nearest first, and which they are, both (n, count).

    For u and v of length 1, 1 − u·v is half of ‖u − v‖², which the center leaves as it is.

    Args:
        features: (n, D).
        exemplars: Of length 1, less the center, (N, D).
        center: (D,).
        from_center: Half of each exemplar's squared length, (N,).
        count: At most N.
    """
    z = F.normalize(features, dim=1) - center
    nearness, indices = (z @ exemplars.T - from_center).topk(count, dim=1)
    return (z.square().sum(dim=1, keepdim=True) / 2 - nearness).clamp(min=0), indices


def vote(
    distances: Tensor, classes: Tensor, class_weights: Tensor, spread: Tensor, *, neighbours: int, sharpness: float
) -> Tensor:
    """Return log(a_j·v_j + 0.2), (n, C), as `KnnHead` defines it.

    Args:
        distances: Of at least k + 1 exemplars, the nearest first, (n, at least k + 1).
        classes: Their classes, of the same shape.
        class_weights: a, (C,).
        spread: The mean distance of the exemplars to the center, ().
        neighbours: k.
        sharpness: s.
    """
    farthest = distances[:, neighbours : neighbours + 1]
    nearer = (farthest - distances[:, :neighbours]) / (farthest + (_MARGIN * spread).clamp(min=TINY))
    # Not len(distances), which the exporter would take for a constant.
    votes = distances.new_zeros((distances.shape[0], len(class_weights)))
    votes = votes.scatter_add(1, classes[:, :neighbours], (nearer / sharpness).exp() - 1)
    return (class_weights * votes + _FLOOR).log()
