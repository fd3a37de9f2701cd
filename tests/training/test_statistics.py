"""Batch-norm statistics taken anew."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from ltrec.training.statistics import reestimate

LABELS = torch.zeros(2, dtype=torch.int64)
FIRST, SECOND = torch.tensor([[1.0], [3.0]]), torch.tensor([[4.0], [8.0]])


class Net(nn.Module):
    """Two batch norms, of which one may be frozen."""

    def __init__(self, *, frozen: bool) -> None:
        super().__init__()
        self.first, self.second, self.frozen = nn.BatchNorm1d(1, momentum=0.3), nn.BatchNorm1d(1), frozen

    def train(self, mode: bool = True) -> Net:
        super().train(mode)
        if self.frozen:
            self.second.eval()
        return self

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        second: torch.Tensor = self.second(images)
        return self.first(images) + second


@pytest.mark.parametrize("training", [True, False])
def test_the_mean_over_batches_by_hand(training: bool) -> None:
    net = Net(frozen=False).train(training)
    net.first.running_mean.fill_(17.0)  # type: ignore[union-attr, operator]
    weights = copy.deepcopy(list(net.parameters()))
    reestimate(net, [(FIRST, LABELS), (SECOND, LABELS)])
    # Means 2 and 6; unbiased variances 2 and 8.
    for norm in (net.first, net.second):
        assert (float(norm.running_mean), float(norm.running_var)) == (4.0, 5.0)  # type: ignore[arg-type]
    assert net.first.momentum == 0.3
    assert net.training is training
    assert all(map(torch.equal, net.parameters(), weights))


def test_frozen_statistics_stay() -> None:
    net = Net(frozen=True)
    net.second.running_mean.fill_(17.0)  # type: ignore[union-attr, operator]
    net.train()
    reestimate(net, [(FIRST, LABELS)])
    assert (float(net.first.running_mean), float(net.second.running_mean)) == (2.0, 17.0)  # type: ignore[arg-type]
