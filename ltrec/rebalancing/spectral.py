"""Linear classifiers in closed form, a whole grid of them from one product and one eigendecomposition.

N images, C classes, D feature dimensions. Classifiers of the form w_j = (A + λ·I)⁻¹·μ_j share the eigenvectors of A:
in their basis each λ divides by other numbers, and nothing is inverted again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch

from ltrec.errors import UserError
from ltrec.models.heads import LinearHead
from ltrec.rebalancing.selection import choose_on_val

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from ltrec.rebalancing.feature_bank import FeatureBank

# Blocks that are multiplied at once, and how many of their products are added up in float32 before float64 takes over.
_IMAGES_AT_ONCE, _BLOCKS_A_SUM = 2048, 4
# Images whose mean is subtracted before anything is squared: it need only be near the true mean.
_SAMPLED = 1024


class Moments(NamedTuple):
    """First and second moments of training features, in float64, about the weighted mean of all images."""

    center: Tensor
    """Σ_j P_j·μ_j, (D,), with P_j the weight of class j as a whole."""
    means: Tensor
    """μ_j − center of each class, (C, D)."""
    scatter: Tensor
    """Σ_j P_j·(mean over class j of (x − center)(x − center)ᵀ), (D, D)."""


def moments(features: Tensor, labels: Tensor, shares: Tensor) -> Moments:
    """Return the moments of features (N, D) in one pass.

    Args:
        features: (N, D), on any device.
        labels: (N,), on the device to compute on.
        shares: P_j, the weight of each class as a whole, (C,), which add up to 1; each class has an image.
    """
    counts, device = labels.bincount(minlength=len(shares)), labels.device
    dim, image_weights = features.shape[1], (len(labels) * shares.double() / counts).float()
    near = features[:: -(-len(features) // _SAMPLED)].to(device).mean(dim=0)
    sums = torch.zeros((len(shares), dim), dtype=torch.float64, device=device)
    scatter = torch.zeros((dim, dim), dtype=torch.float64, device=device)
    product = torch.zeros((dim, dim), device=device)
    blocks = zip(*(torch.split(of, _IMAGES_AT_ONCE) for of in (features, labels)), strict=True)
    for index, (block, y) in enumerate(blocks, start=1):
        x = block.to(device) - near
        sums.index_add_(0, y, x.double())
        product.addmm_((x * image_weights[y][:, None]).T, x)
        if index % _BLOCKS_A_SUM == 0:
            scatter += product
            product.zero_()
    scatter = (scatter + product) / len(labels)
    means = sums / counts[:, None]
    offset = shares.double() @ means
    scatter -= offset[:, None] * offset
    return Moments(near.double() + offset, means - offset, (scatter + scatter.T) / 2)


@dataclass(frozen=True)
class SpectralFamily:
    """Linear classifiers of the scores (μ_j − m)ᵀ·A_k⁻¹·(x − m) + b_kj, one for each k, whose A_k = U·diag(a_k)·Uᵀ.

    Attributes:
        vectors: U, float64 (D, D).
        center: m, float64 (D,).
        means: Uᵀ·(μ_j − m), float64 (C, D).
        inverses: 1/a_k for each k, float64 (D,).
        biases: b_k for each k, float64 (C,).
    """

    vectors: Tensor
    center: Tensor
    means: Tensor
    inverses: Sequence[Tensor]
    biases: Sequence[Tensor]

    def logits(self, features: Tensor) -> Iterator[Tensor]:
        """Yield each classifier's scores (n, C) of float32 features (n, D), which are rotated once."""
        dtype = features.dtype
        z, means = (features - self.center.to(dtype)) @ self.vectors.to(dtype), self.means.to(dtype).T
        for inverse, bias in zip(self.inverses, self.biases, strict=True):
            yield torch.addmm(bias.to(dtype), z * inverse.to(dtype), means)

    def head(self, index: int) -> LinearHead:
        """Return one classifier on the features as they are."""
        weight = (self.means * self.inverses[index]) @ self.vectors.T
        bias = self.biases[index] - weight @ self.center
        return LinearHead(weight.float(), bias.float()).to(weight.device)

    def choose(self, val: FeatureBank) -> tuple[int, list[float], LinearHead]:
        """Return which classifier is best on val, each one's balanced accuracy there, and its head."""
        index, balanced = choose_on_val(self.logits, len(self.inverses), val.plain, val.labels)
        return index, balanced, self.head(index)


def eigenbasis(matrix: Tensor) -> tuple[Tensor, Tensor, float]:
    """Return the eigenvalues (D,), the eigenvectors (D, D) and the mean eigenvalue of a covariance, float64 (D, D).

    Eigenvalues that are negative by rounding are 0. Where all features are the same, the mean counts as 1.

    Raises:
        UserError: A number of the matrix is not finite.
    """
    if not matrix.isfinite().all():
        raise UserError("the covariance of the training features is not finite: they are too large, or not finite")
    values, vectors = torch.linalg.eigh(matrix)
    values = values.clamp(min=0)
    return values, vectors, float(values.mean()) or 1.0
