"""Mixup (Zhang et al. 2018): training images blended with each other, and their targets alike. B images a batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ltrec.compute.device import sent

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# A part of the seed that keeps these random numbers apart from those of crops and draws.
_STREAM = 0xB1E7D


class MixedTargets(NamedTuple):
    """The targets of images that others were blended into."""

    labels: Tensor
    """The images' own labels, (B,)."""
    others: Tensor
    """The labels of the images that were blended in, (B,)."""
    shares: Tensor
    """How much each image kept of itself, in 0…1, (B,)."""


Targets = Tensor | MixedTargets
"""Labels (B,), or the targets of mixed images."""


def mixed_batches(
    batches: Iterable[tuple[Tensor, Tensor]], alpha: float, seed: tuple[int, ...]
) -> Iterator[tuple[Tensor, MixedTargets]]:
    """Yield the batches, images (B, …) and labels (B,), each image mixed with a share drawn from Beta(α, α)."""
    random = np.random.default_rng([*seed, _STREAM])
    for images, labels in batches:
        shares = torch.from_numpy(random.beta(alpha, alpha, size=len(images)).astype(np.float32))
        yield mix(images, labels, sent(shares, images.device))


def mix(images: Tensor, labels: Tensor, shares: Tensor) -> tuple[Tensor, MixedTargets]:
    """Return s_i·x_i + (1 − s_i)·x_{B−1−i} for images x (B, …) and shares s (B,), and the targets."""
    mixed = torch.lerp(images.flip(0).float(), images.float(), shares.view(-1, *[1] * (images.ndim - 1)))
    return mixed, MixedTargets(labels, labels.flip(0), shares)


def main_labels(targets: Targets) -> Tensor:
    """Return the label of each image's larger part, (B,)."""
    if not isinstance(targets, MixedTargets):
        return targets
    return torch.where(targets.shares >= 0.5, targets.labels, targets.others)


def split_targets(targets: Targets, parts: int) -> list[Targets]:
    """Return the targets in `parts` parts, as `torch.tensor_split` cuts the images."""
    if not isinstance(targets, MixedTargets):
        return list(targets.tensor_split(parts))
    return [MixedTargets(*part) for part in zip(*(tensor.tensor_split(parts) for tensor in targets), strict=True)]
