"""The step uphill of sharpness-aware minimisation."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ltrec.training.sharpness import climbed


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


def test_weights_move_by_rho_along_the_gradient_and_come_back() -> None:
    net = network()
    net(torch.rand(4, 3)).square().sum().backward()
    before = [parameter.detach().clone() for parameter in net.parameters()]
    gradient = torch.cat([parameter.grad.flatten() for parameter in net.parameters() if parameter.grad is not None])
    with climbed(net, 0.1):
        moved = torch.cat([(now - old).flatten() for now, old in zip(net.parameters(), before, strict=True)])
        torch.testing.assert_close(moved.detach(), 0.1 * gradient / gradient.norm(), atol=1e-6, rtol=1e-5)
    assert all(map(torch.equal, net.parameters(), before))


def test_statistics_are_those_of_the_weights_that_are_kept() -> None:
    net = network()
    net(torch.rand(4, 3)).sum().backward()
    before = [buffer.clone() for buffer in net.buffers()]
    with climbed(net, 0.1):
        net(torch.rand(4, 3))
    assert all(map(torch.equal, net.buffers(), before))


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 0.0])
def test_a_gradient_without_a_direction_moves_nothing(value: float) -> None:
    net = network()
    for parameter in net.parameters():
        parameter.grad = torch.full_like(parameter, value)
    before = [parameter.detach().clone() for parameter in net.parameters()]
    with climbed(net, 0.1):
        assert all(map(torch.equal, net.parameters(), before))


def test_what_has_no_gradient_stays() -> None:
    net = network()
    net[1].requires_grad_(False)
    net(torch.rand(4, 3)).square().sum().backward()
    fixed = net[1].weight.clone()
    with climbed(net, 0.1):
        assert torch.equal(net[1].weight, fixed)
