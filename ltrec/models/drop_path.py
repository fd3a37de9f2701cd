"""Drop path, or stochastic depth (Huang et al. 2016): in training a residual block is left out for some images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ltrec.errors import UserError

if TYPE_CHECKING:
    from torch import nn


def set_drop_path(network: nn.Module, rate: float, name: str) -> None:
    """Set the blocks' probabilities of being left out: 0 in the first, rising linearly to `rate` in the last.

    Raises:
        UserError: A network of torchvision's, of this name, has no blocks that could be left out.
    """
    from torchvision.ops import StochasticDepth

    blocks = [module for module in network.modules() if isinstance(module, StochasticDepth)]
    if not blocks:
        raise UserError(
            f"{name} has no drop path, got {rate:g}; torchvision's ConvNeXt, EfficientNet, MaxViT and Swin have;"
            " allowed here: null",
            where="params.yaml: represent.backbone.drop_path",
        )
    for number, block in enumerate(blocks):
        block.p = rate * number / max(len(blocks) - 1, 1)
