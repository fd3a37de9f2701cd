"""Optimizers and learning-rate schedules."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from ltrec.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterable

    import torch


class SgdRecipe(Settings):
    """The figures of stochastic gradient descent with momentum, each within what a float32 holds."""

    lr: Annotated[float, Field(gt=0, le=1e38)] = 0.1
    """Learning rate at the first step."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0, le=1e38)] = 5e-4


class SgdSettings(SgdRecipe):
    """Stochastic gradient descent with momentum and a cosine schedule to 0, as in the paper."""

    def build(
        self, parameters: Iterable[torch.nn.Parameter], *, steps: int
    ) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        """The optimizer and its schedule over `steps` updates in all."""
        import torch

        optimizer = torch.optim.SGD(parameters, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay)
        return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: cosine(step, steps))


def cosine(step: int, steps: int) -> float:
    """½(1 + cos(π·step/steps)): 1 at the first of `steps` updates, 0 after the last (Loshchilov & Hutter 2017)."""
    return 0.5 * (1 + math.cos(math.pi * min(step, steps) / steps))
