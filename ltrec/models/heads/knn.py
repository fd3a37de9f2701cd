"""The head of the nearest neighbours. n images, N exemplars, D feature dimensions, C classes."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ltrec.models.heads.base import Head

# Cosines of so many images to all exemplars are held at once.
_IMAGES_AT_ONCE = 256
# A vote that each class has, so that the logarithm is finite; and what keeps copies of one image from dividing by 0.
_FLOOR, _NEAREST = 0.2, 1e-3


class KnnHead(Head):
    """Lets the k nearest training images vote, by cosine: logits are log(a_j·v_j + 0.2).

    v_j is the sum of exp(t_i / s) − 1 over the neighbours i of class j, where t_i = (d − d_i) / (d + 0.001) tells how
    much nearer than the (k + 1)th the neighbour is: d_i = 1 − cos_i, and d is that of the (k + 1)th. A vote falls to 0
    there: who comes in as another one goes changes nothing at once, and a rounding of the cosines remains a rounding of
    the logits, so that PyTorch and onnxruntime agree.

    Args:
        exemplars: The training images' features, each of length 1, (N, D).
        labels: Their classes, (N,).
        class_weights: a, (C,).
        neighbours: k, below N.
        sharpness: s; the smaller, the more the nearest of the neighbours count.
    """

    kind = "knn"
    exemplars: Tensor
    labels: Tensor
    class_weights: Tensor

    def __init__(
        self, exemplars: Tensor, labels: Tensor, class_weights: Tensor, *, neighbours: int, sharpness: float
    ) -> None:
        super().__init__(len(class_weights), exemplars.shape[1])
        self.neighbours, self.sharpness = neighbours, sharpness
        self.register_buffer("exemplars", exemplars)
        self.register_buffer("labels", labels)
        self.register_buffer("class_weights", class_weights)

    def options(self) -> dict[str, Any]:
        return {"neighbours": self.neighbours, "sharpness": self.sharpness}

    def scores(self, features: Tensor) -> Tensor:
        if torch.compiler.is_exporting():  # the size of the batch is not known then
            return self._scores(features)
        return torch.cat([self._scores(block) for block in torch.split(features, _IMAGES_AT_ONCE)])

    def _scores(self, features: Tensor) -> Tensor:
        cosines, classes = nearest(features, self.exemplars, self.labels, self.neighbours + 1)
        return vote(cosines, classes, self.class_weights, self.neighbours, self.sharpness)


def nearest(features: Tensor, exemplars: Tensor, labels: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the cosines of the nearest exemplars, the nearest first, and their classes, both (n, count).

    Args:
        features: (n, D).
        exemplars: Each of length 1, (N, D).
        labels: Their classes, (N,).
        count: At most N.
    """
    cosines, indices = (F.normalize(features, dim=1) @ exemplars.T).topk(count, dim=1)
    return cosines, labels[indices]


def vote(cosines: Tensor, classes: Tensor, class_weights: Tensor, neighbours: int, sharpness: float) -> Tensor:
    """Return log(a_j·v_j + 0.2), (n, C), as `KnnHead` defines it.

    Args:
        cosines: Of at least k + 1 exemplars, the nearest first, (n, at least k + 1).
        classes: Their classes, of the same shape.
        class_weights: a, (C,).
        neighbours: k.
        sharpness: s.
    """
    farthest = cosines[:, neighbours : neighbours + 1]
    nearer = (cosines[:, :neighbours] - farthest) / (1 - farthest + _NEAREST)
    votes = torch.zeros((len(cosines), len(class_weights)), dtype=cosines.dtype, device=cosines.device)
    votes = votes.scatter_add(1, classes[:, :neighbours], (nearer / sharpness).exp() - 1)
    return (class_weights * votes + _FLOOR).log()
