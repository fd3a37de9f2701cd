"""Feature banks with the joint logits beside the features, so that training need not compute them at each step.

V views, N images, B of a batch, D feature dimensions, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ltrec.models.heads import logits_in_blocks, logits_of
from ltrec.rebalancing.feature_bank import FeatureBank

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from ltrec.models.heads import Head


# Joint logits are kept while a head learns on them, if they are no larger.
_KEPT_BYTES = 1 << 30


def can_be_kept(classes: int, *banks: FeatureBank) -> bool:
    """Return whether memory is spent on the logits (V, N, C) of all the banks, instead of time at each step."""
    return sum(4 * classes * bank.views * len(bank.labels) for bank in banks) <= _KEPT_BYTES


def bank_of_logits(bank: FeatureBank, head: Head) -> FeatureBank:
    """Return a bank of a head's logits (V, N, C) in place of the features, on its labels' device."""
    return FeatureBank(torch.stack([logits_of(head, view) for view in bank.features]), bank.labels, bank.header)


@dataclass(frozen=True)
class FeaturesAndLogits(FeatureBank):
    """A bank to train on, whose batches are features and logits, (B, D + C).

    Attributes:
        logits: Of each view of each image, (V, N, C).
    """

    logits: Tensor

    @classmethod
    def of(cls, bank: FeatureBank, head: Head) -> FeaturesAndLogits:
        """Return a bank with a head's logits, which lie on its labels' device."""
        return cls(bank.features, bank.labels, bank.header, bank_of_logits(bank, head).features)

    def batches(self, drawn: NDArray[np.int64], size: int, *, epoch: int, seed: int) -> Iterator[Tensor]:
        """Yield batches as the bank does, of the same views, each with its logits."""
        of_logits = FeatureBank(self.logits, self.labels, self.header)
        both = (bank(drawn, size, epoch=epoch, seed=seed) for bank in (super().batches, of_logits.batches))
        for batch in zip(*both, strict=True):
            yield torch.cat(batch, dim=1)


def plain_beside_logits(bank: FeatureBank, head: Head) -> FeatureBank:
    """Return a bank of the plain features with a head's logits, (1, N, D + C), where the features lie."""
    host = bank.features.device
    beside = torch.empty((1, len(bank.labels), head.dim + head.classes), device=host)
    for rows, logits in logits_in_blocks(head, bank.plain):
        beside[0, rows, : head.dim] = bank.plain[rows].to(host)
        beside[0, rows, head.dim :] = logits.to(host)
    return FeatureBank(beside, bank.labels, bank.header)
