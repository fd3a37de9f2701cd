"""Training images mixed with others, and their targets alike. B images of a batch, H = W pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from ltrec.compute.device import sent

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    Batch = tuple[Tensor, Tensor]

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


class Mix(Protocol):
    """Mixes the images of an epoch's batches with others."""

    def batches(self, batches: Iterable[Batch], epoch: int, key: tuple[int, ...]) -> Iterator[tuple[Tensor, Targets]]:
        """Yield the batches mixed: images and targets.

        Args:
            batches: This rank's batches, images (b, H, W, 3) and labels (b,), as the epoch's sampler draws them.
            epoch: The epoch, counted from 0.
            key: The key of the random numbers; the same key mixes alike.
        """
        ...


class Blended:
    """Mixup: each image blended with its opposite in the batch.

    Args:
        alpha: α of the Beta(α, α) that each image's share of itself is drawn from.
    """

    def __init__(self, alpha: float) -> None:
        self._alpha = alpha

    def batches(self, batches: Iterable[Batch], epoch: int, key: tuple[int, ...]) -> Iterator[tuple[Tensor, Targets]]:  # noqa: ARG002
        """Yield the batches mixed, as `Mix` says."""
        random = np.random.default_rng([*key, _STREAM])
        for images, labels in batches:
            shares = torch.from_numpy(random.beta(self._alpha, self._alpha, size=len(images)).astype(np.float32))
            yield blend(images, labels, sent(shares, images.device))


class Pasted:
    """CutMix: a rectangle of its opposite in the batch pasted into some images.

    Args:
        alpha: α of the Beta(α, α) that the share that stays is drawn from.
        probability: Of an image to be pasted into.
    """

    def __init__(self, alpha: float, probability: float) -> None:
        self._alpha, self._probability = alpha, probability

    def batches(self, batches: Iterable[Batch], epoch: int, key: tuple[int, ...]) -> Iterator[tuple[Tensor, Targets]]:  # noqa: ARG002
        """Yield the batches mixed, as `Mix` says."""
        random = np.random.default_rng([*key, _STREAM])
        for images, labels in batches:
            boxes = self.boxes(len(images), images.shape[1], random)
            yield paste(images, labels, images.flip(0), labels.flip(0), sent(boxes, images.device))

    def boxes(self, count: int, side: int, random: np.random.Generator) -> Tensor:
        """Return the rectangle of each of `count` images of `side` pixels: top, left, bottom and right, (count, 4).

        Its sides are √(1 − λ) of the image's, its middle is a random pixel, and what lies outside is cut off (Yun et
        al. 2019, equation 2 and their code). Of images that stay as they are it is empty.
        """
        shares = random.beta(self._alpha, self._alpha, size=(count, 1))
        middle = random.integers(0, side, size=(count, 2))
        pasted = random.random((count, 1)) < self._probability
        half = (side * np.sqrt(1 - shares)).astype(np.int64) // 2 * pasted
        return torch.from_numpy(np.concatenate([middle - half, middle + half], axis=1).clip(0, side))


class PastedFromOthers:
    """CMO: a rectangle of an image of another draw pasted into some images.

    Args:
        alpha: α of the Beta(α, α) that the share that stays is drawn from.
        probability: Of an image to be pasted into.
        epochs: The epochs in which that is done; in others images stay as they are.
    """

    def __init__(self, alpha: float, probability: float, epochs: range) -> None:
        self._pasted, self._epochs = Pasted(alpha, probability), epochs

    def batches(self, batches: Iterable[Batch], epoch: int, key: tuple[int, ...]) -> Iterator[tuple[Tensor, Targets]]:
        """Yield every other batch, with rectangles of the one that follows it (`samplers.PairedSampler`)."""
        random = np.random.default_rng([*key, _STREAM])
        source = iter(batches)
        for (images, labels), (others, other_labels) in zip(source, source, strict=True):
            if epoch in self._epochs:
                boxes = self._pasted.boxes(len(images), images.shape[1], random)
                yield paste(images, labels, others, other_labels, sent(boxes, images.device))
            else:
                yield images, labels


def blend(images: Tensor, labels: Tensor, shares: Tensor) -> tuple[Tensor, MixedTargets]:
    """Return s_i·x_i + (1 − s_i)·x_{B−1−i} for images x (B, …) and shares s (B,), and the targets."""
    mixed = torch.lerp(images.flip(0).float(), images.float(), shares.view(-1, *[1] * (images.ndim - 1)))
    return mixed, MixedTargets(labels, labels.flip(0), shares)


def paste(
    images: Tensor, labels: Tensor, others: Tensor, other_labels: Tensor, boxes: Tensor
) -> tuple[Tensor, MixedTargets]:
    """Return images (B, H, W, 3) with rectangles of others, and the targets by what each image kept of its pixels.

    Args:
        images: The images that are pasted into.
        labels: Their labels, (B,).
        others: The images that rectangles are cut from, the same place in both, (B, H, W, 3).
        other_labels: Their labels, (B,).
        boxes: Top, left, bottom and right of each rectangle, bottom and right exclusive, (B, 4).
    """
    size = images.shape[1]
    top, left, bottom, right = boxes[:, :, None].unbind(dim=1)  # (B, 1) each
    along = torch.arange(size, device=images.device)
    rows, columns = (along >= top) & (along < bottom), (along >= left) & (along < right)  # (B, H) each
    mixed = torch.where((rows[:, :, None] & columns[:, None, :])[..., None], others, images)
    shares = 1 - ((bottom - top) * (right - left))[:, 0] / size**2
    return mixed, MixedTargets(labels, other_labels, shares)


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
