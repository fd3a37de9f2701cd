"""Batch-norm statistics of a trained network, taken anew on draws of another balance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ltrec.compute.precision import autocast

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor, nn

    from ltrec.compute.precision import Precision


@torch.no_grad()
def reestimate(network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], *, precision: Precision = "fp32") -> None:
    """Replace the statistics of a network's batch norms by their means over batches, and change nothing else.

    Batch norms that are frozen keep theirs, unlike with `torch.optim.swa_utils.update_bn`.

    Args:
        network: Images (b, H, W, 3) → logits (b, C), on its device; its mode is restored.
        batches: Images and labels (b,), on that device.
        precision: The precision of the arithmetic.
    """
    from torch.nn.modules.batchnorm import _BatchNorm

    device, was_training = next(network.parameters()).device, network.training
    network.train()
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm) and module.training]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's way to ask for the mean over all batches
    for images, _ in batches:
        with autocast(precision, device):
            network(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.train(was_training)
