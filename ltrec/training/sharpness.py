"""Sharpness-aware minimisation: the gradient where the loss is worst nearby."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn


@contextlib.contextmanager
def climbed(network: nn.Module, rho: float) -> Iterator[None]:
    """Move the weights uphill by ρ·g/‖g‖ for the block (Foret et al. 2021, equation 2), and back to the bit after it.

    g are the gradients that the parameters have, without weight decay; their norm is that of all together. What the
    block does to buffers is undone too: batch-norm statistics are those of the weights that are kept. Where a gradient
    is not finite, as fp16's may be, the weights stay.

    Args:
        network: The network, with its gradients.
        rho: ρ, the length of the move.
    """
    pairs = [(parameter, parameter.grad) for parameter in network.parameters() if parameter.grad is not None]
    parameters = [parameter for parameter, _ in pairs]
    norm = torch.nn.utils.get_total_norm([gradient for _, gradient in pairs])
    factor = torch.where(norm.isfinite() & (norm > 0), rho / norm, torch.zeros_like(norm))
    kept = [*parameters, *network.buffers()]
    before = [tensor.detach().clone() for tensor in kept]
    with torch.no_grad():
        for parameter, gradient in pairs:
            # Not times 0: an infinite gradient would give NaN.
            parameter.add_(torch.where(factor > 0, gradient * factor, 0.0))
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, content in zip(kept, before, strict=True):
                tensor.copy_(content)
