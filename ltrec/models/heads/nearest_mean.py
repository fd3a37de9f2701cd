"""The head of nearest class mean, NCM (Kang et al. 2020, section 4). N images, D feature dimensions, C classes."""

from __future__ import annotations

from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor

from ltrec.models.heads.base import Head

# A norm below it counts as this, as in torch's own normalisation.
TINY = 1e-12

Transform = Literal["un", "l2n", "cl2n"]
Distance = Literal["euclidean", "cosine"]


class NearestMeanHead(Head):
    """Scores each class by how close the feature is to the class's mean, as `closeness` measures it.

    Args:
        means: μ, the mean of each class's transformed features, (C, D).
        center: The mean feature, (D,).
        transform: What is done to a feature before it is compared.
        distance: How it is compared.
    """

    kind = "nearest_mean"
    means: Tensor
    center: Tensor

    def __init__(self, means: Tensor, center: Tensor, transform: Transform, distance: Distance) -> None:
        super().__init__(*means.shape)
        self.transform: Transform = transform
        self.distance: Distance = distance
        self.register_buffer("means", means)
        self.register_buffer("center", center)

    def options(self) -> dict[str, Any]:
        return {"transform": self.transform, "distance": self.distance}

    def scores(self, features: Tensor) -> Tensor:
        z = transformed(features, self.center, self.transform)
        return closeness(z @ self.means.T, z.norm(dim=1), self.means.norm(dim=1), self.distance)


def transformed(features: Tensor, center: Tensor, transform: Transform) -> Tensor:
    """Return the features (N, D) as they are (`un`), L2-normalised (`l2n`), or centred and L2-normalised (`cl2n`)."""
    if transform == "un":
        return features
    return F.normalize(features - center if transform == "cl2n" else features, dim=1)


def closeness(products: Tensor, feature_norms: Tensor, mean_norms: Tensor, distance: Distance) -> Tensor:
    """Return how close each feature z is to each mean μ_j, (N, C); the largest is the nearest.

    Euclidean: 2·z·μ_j − ‖μ_j‖², which is −‖z − μ_j‖² but for a term that all classes share.
    Cosine: z·μ_j / (‖z‖ ‖μ_j‖).

    Args:
        products: z·μ_j, (N, C).
        feature_norms: ‖z‖, (N,).
        mean_norms: ‖μ_j‖, (C,).
        distance: Which of the two.
    """
    if distance == "cosine":
        return products / (feature_norms.clamp(min=TINY)[:, None] * mean_norms.clamp(min=TINY))
    return 2 * products - mean_norms.square()
