"""Training of a head on the backbone's features, the epoch chosen on val."""

from __future__ import annotations

import copy
import math
from functools import partial
from typing import TYPE_CHECKING

from ltrec.device import require_finite
from ltrec.optim import SgdRecipe, cosine
from ltrec.samplers import ClassBalanced, SamplerSettings
from ltrec.settings import PositiveInt

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

    from ltrec.features import FeatureBank
    from ltrec.rebalancers.base import Row
    from ltrec.samplers import Sampler
    from ltrec.selection import Candidate


class HeadTrainingSettings(SgdRecipe):
    """How a head is trained on features; an epoch draws as many as there are training images."""

    sampler: SamplerSettings = ClassBalanced()
    epochs: PositiveInt = 10
    batch_size: PositiveInt = 128
    images: bool = False
    """Features anew in each epoch, of augmented images, as the paper did; false: those of the feature bank."""

    def trainer(self, seed: int) -> HeadTrainer:
        """The plain object that trains as these settings say."""
        return HeadTrainer(
            partial(self.sampler.build, seed=seed, epochs=self.epochs),
            epochs=self.epochs, batch_size=self.batch_size, seed=seed,
            lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay,
        )  # fmt: skip


class HeadTrainer:
    """Cross-entropy on resampled features, by SGD with a cosine schedule; of all epochs the best on val is kept.

    Args:
        sampler: Makes the sampler for the training labels, (N,).
        epochs: Of as many draws as there are training images.
        batch_size: Draws an update.
        seed: Of the views drawn.
        lr: Learning rate at the first step.
        momentum: Of SGD.
        weight_decay: Of SGD.
    """

    def __init__(
        self,
        sampler: Callable[[NDArray[np.int64]], Sampler],
        *,
        epochs: int,
        batch_size: int,
        seed: int,
        lr: float,
        momentum: float,
        weight_decay: float,
    ) -> None:
        self.sampler = sampler
        self.epochs = epochs
        self.batch_size = batch_size
        self.seed = seed
        self.lr = lr
        self.momentum = momentum
        self.weight_decay = weight_decay

    def fit(self, head: nn.Module, train: FeatureBank, val: FeatureBank) -> tuple[int, list[Row]]:
        """Train the parameters of `head` that require a gradient, in place.

        Args:
            head: From features (N, D) to logits (N, C).
            train: Gives each epoch's batches of features, and the labels (N,).
            val: The plain features (N, D) and labels (N,) to choose the epoch on.

        Returns:
            The epoch that was kept, counted from 1, and a row for each epoch.

        Raises:
            UserError: the loss, or a logit on val after an epoch, is no longer finite.
        """
        import torch

        from ltrec.selection import Candidate

        labels = train.labels
        sampler = self.sampler(labels.cpu().numpy())
        size = min(self.batch_size, len(labels))
        steps = len(labels) // size
        learnt = [parameter for parameter in head.parameters() if parameter.requires_grad]
        optimizer = torch.optim.SGD(
            learnt, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay, fused=True
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: cosine(step, self.epochs * steps))
        best: tuple[Candidate, int, dict[str, Tensor]] | None = None
        curve: list[Row] = []
        for epoch in range(self.epochs):
            loss = self._epoch(head, train, sampler.epoch(epoch), size, epoch, optimizer, schedule)
            with torch.no_grad():
                logits = head(val.plain)
            # No loss tells of the epoch's last update.
            largest = float(logits.abs().max())
            require_finite(largest, "the largest logit on val", epoch=epoch, step=steps - 1, lr=self.lr)
            candidate = Candidate(logits, val.labels)
            curve.append({"epoch": epoch + 1, "loss": loss, "val": candidate.balanced})
            if best is None or candidate > best[0]:
                best = (candidate, epoch + 1, copy.deepcopy(head.state_dict()))
        assert best is not None, "there is at least one epoch"
        head.load_state_dict(best[2])
        return best[1], curve

    def _epoch(
        self,
        head: nn.Module,
        train: FeatureBank,
        drawn: NDArray[np.int64],
        size: int,
        epoch: int,
        optimizer: Optimizer,
        schedule: LRScheduler,
    ) -> float:
        """One epoch's updates; returns the mean loss. The losses stay on the device until it is over."""
        import torch
        import torch.nn.functional as F

        wanted = train.labels[torch.from_numpy(drawn).to(train.labels.device)]
        losses = []
        for step, features in enumerate(train.batches(drawn, size, epoch=epoch, seed=self.seed)):
            loss = F.cross_entropy(head(features), wanted[step * size : (step + 1) * size])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            losses.append(loss.detach())
        values = torch.stack(losses).tolist()
        for step, value in enumerate(values):
            require_finite(value, "the loss", epoch=epoch, step=step, lr=self.lr)
        return math.fsum(values) / len(values)
