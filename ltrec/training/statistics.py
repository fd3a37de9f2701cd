"""Batch-norm statistics of a trained network, taken anew on draws of another balance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from ltrec.compute.distributed import SINGLE_PROCESS
from ltrec.compute.precision import autocast

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor, nn

    from ltrec.compute.distributed import World
    from ltrec.compute.precision import Precision


def trained_norms(network: nn.Module) -> list[_BatchNorm]:
    """Return the batch norms of a network in training mode whose statistics change, because they are not frozen."""
    return [module for module in network.modules() if isinstance(module, _BatchNorm) and module.training]


@torch.no_grad()
def reestimate(
    network: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    precision: Precision = "fp32",
    world: World = SINGLE_PROCESS,
) -> None:
    """Replace the statistics of a network's batch norms by their means over batches, and change nothing else.

    Batch norms that are frozen keep theirs, unlike with `torch.optim.swa_utils.update_bn`.

    Args:
        network: Images (b, H, W, 3) → logits (b, C), on its device; its mode is restored.
        batches: This rank's images and labels (b,), on that device.
        precision: The precision of the arithmetic.
        world: The ranks, over whose batches the means are taken.
    """
    device, was_training = next(network.parameters()).device, network.training
    network.train()
    norms = trained_norms(network)
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's way to ask for the mean over all batches
    for images, _ in batches:
        with autocast(precision, device):
            network(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        for statistic in (norm.running_mean, norm.running_var):
            if statistic is not None:
                world.sum(statistic)
                statistic.div_(world.size)
    network.train(was_training)
