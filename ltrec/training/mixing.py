"""Mixup (Zhang et al. 2018): training images blended with each other, and their targets alike. B images a batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import Tensor

    Blended = tuple[Tensor, Tensor, Tensor, Tensor]
    """Images (B, …), their labels (B,), those of what each is blended with, and the share of itself in each (B,)."""

# Keeps its random numbers apart from those of crops and draws.
_STREAM = 0xB1E7D


def blend(batches: Iterable[tuple[Tensor, Tensor]], alpha: float, key: tuple[int, ...]) -> Iterator[Blended]:
    """Blend each image with its opposite in the batch, with a share of its own from Beta(α, α).

    Args:
        batches: Images (B, …) and labels (B,).
        alpha: α.
        key: Of the random numbers.
    """
    random = np.random.default_rng([*key, _STREAM])
    for images, labels in batches:
        shares = torch.from_numpy(random.beta(alpha, alpha, size=len(images)).astype(np.float32))
        yield blended(images, labels, shares.to(images.device, non_blocking=True))


def blended(images: Tensor, labels: Tensor, shares: Tensor) -> Blended:
    """s·x_i + (1 − s)·x_{B−1−i} for each image's share s of (B,)."""
    mixed = torch.lerp(images.flip(0).float(), images.float(), shares.view(-1, *[1] * (images.ndim - 1)))
    return mixed, labels, labels.flip(0), shares
