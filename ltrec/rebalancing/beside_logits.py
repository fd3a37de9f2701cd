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
        logits = torch.stack([logits_of(head, view) for view in bank.features])
        return cls(bank.features, bank.labels, bank.header, logits)

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
