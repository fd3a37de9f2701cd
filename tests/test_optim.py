"""The optimizer and its schedule by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ltrec.optim import SgdSettings, cosine


@pytest.mark.parametrize(
    ("step", "expected"), [(0, 1.0), (2, 0.853553), (4, 0.5), (6, 0.146447), (8, 0.0), (9, 0.0)]
)  # ½(1 + cos(π/4)) = 0.853553
def test_cosine_by_hand(step: int, expected: float) -> None:
    assert cosine(step, 8) == pytest.approx(expected, abs=1e-6)


def test_learning_rate_at_the_start_the_middle_and_the_end() -> None:
    optimizer, schedule = SgdSettings(lr=0.2).build([nn.Parameter(torch.zeros(1))], steps=10)
    rates = []
    for _ in range(10):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[0] == pytest.approx(0.2)
    assert rates[5] == pytest.approx(0.1)
    assert rates[9] == pytest.approx(0.2 * 0.024472, abs=1e-6)  # ½(1 + cos(0.9 π))
    assert optimizer.param_groups[0]["lr"] == 0.0
    assert rates == sorted(rates, reverse=True)


def test_two_steps_of_momentum_and_weight_decay_by_hand() -> None:
    w = nn.Parameter(torch.tensor([1.0]))
    optimizer, _ = SgdSettings(lr=0.1, momentum=0.5, weight_decay=0.2).build([w], steps=10)
    for expected in (1 - 0.1 * (3 + 0.2), 0.68 - 0.1 * (0.5 * 3.2 + 3 + 0.2 * 0.68)):
        optimizer.zero_grad()
        (3 * w).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        assert float(w.detach()) == pytest.approx(expected)
