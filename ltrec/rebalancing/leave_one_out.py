"""Suspected label errors: each image against the class means without itself. N images, D features, C classes.

Class means of L2-normalised features, compared by cosine. An image's own class has its mean without the image, in
closed form: (S_y − z)/(n_y − 1), with S_y the sum over the class. Nothing is fitted again, and unlike in
cross-validation a class of two images has a mean for each of them. A class of one has none without it: its image is
not judged. Confident learning (Northcutt et al. 2021) ranks by the same probabilities; its thresholds for each class,
which cleanlab has, found fewer flipped labels (docs/suspects.md), since a rare class's own mean probability is a guess.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from ltrec.models.heads.nearest_mean import TINY
from ltrec.rebalancing.selection import LogitBlocks, fit_temperature

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

_IMAGES_AT_ONCE = 1024  # as `fit_temperature` takes logits
_TEMPERATURE_IMAGES = 10_000  # that one number is fitted on; it takes dozens of passes


@dataclass(frozen=True)
class Suspects:
    """M images that lie nearer to another class's mean than to that of their own, the most suspect first."""

    rows: Tensor
    """Which images they are, (M,)."""
    guesses: Tensor
    """The class whose mean is nearest, (M,)."""
    confidences: Tensor
    """The probability that the label is wrong, as far as nearest means can tell, (M,)."""
    judged: int
    """How many of the N images could be judged: those whose class has another image."""


def find_suspects(features: Tensor, labels: Tensor) -> Suspects:
    """Return the images whose label is suspect.

    The confidence is 1 − p_y, with p the softmax of the cosines over the temperature that makes the labels likeliest.

    Args:
        features: (N, D).
        labels: (N,), none of them unknown; classes without an image are never guessed.
    """
    present, labels = torch.unique(labels, return_inverse=True)
    counts = labels.bincount(minlength=len(present))
    rows = (counts[labels] > 1).nonzero()[:, 0]
    if len(present) < 2 or not len(rows):
        none = torch.empty(0, dtype=torch.int64)
        return Suspects(none, none, none.double(), len(rows))
    sums = _class_sums(features, labels, len(present))
    directions = F.normalize(sums, dim=1).to(features.dtype)

    def similarities(of: Tensor) -> Iterator[Tensor]:
        for block in torch.split(of, _IMAGES_AT_ONCE):
            yield _without_itself(F.normalize(features[block], dim=1), labels[block], sums, directions)

    sample = rows[:: -(-len(rows) // _TEMPERATURE_IMAGES)]
    temperature, _ = fit_temperature(LogitBlocks(lambda: similarities(sample)), labels[sample])
    guesses, doubts = [], []
    for own, z in zip(torch.split(labels[rows], _IMAGES_AT_ONCE), similarities(rows), strict=True):
        p = (z.double() / temperature).softmax(dim=1)
        guesses.append(z.argmax(dim=1))
        doubts.append(p.scatter(1, own[:, None], 0.0).sum(dim=1))  # 1 - p_y would lose the digits of a small doubt
    guess, doubt = torch.cat(guesses), torch.cat(doubts)
    suspect = (guess != labels[rows]).nonzero()[:, 0]
    order = suspect[doubt[suspect].argsort(descending=True, stable=True)]
    return Suspects(rows[order], present[guess[order]], doubt[order], len(rows))


def _class_sums(features: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Return the sum of each class's normalised features, float64 (C, D)."""
    sums = torch.zeros((classes, features.shape[1]), dtype=torch.float64)
    for block, y in zip(*(torch.split(of, _IMAGES_AT_ONCE) for of in (features, labels)), strict=True):
        sums.index_add_(0, y, F.normalize(block, dim=1).double())
    return sums


def _without_itself(z: Tensor, labels: Tensor, sums: Tensor, directions: Tensor) -> Tensor:
    """Return the cosine of each image to each class mean, that of its own class without the image, (n, C).

    Args:
        z: Normalised features, (n, D).
        labels: (n,).
        sums: The classes' sums of such features, float64 (C, D).
        directions: The same, each of length 1, in the precision of the features.
    """
    rest = sums[labels] - z.double()
    own = torch.linalg.vecdot(z.double(), rest) / rest.norm(dim=1).clamp(min=TINY)
    return (z @ directions.T).scatter(1, labels[:, None], own.to(z.dtype)[:, None])
