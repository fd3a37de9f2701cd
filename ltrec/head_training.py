"""Training of a head on the backbone's features, the epoch chosen on val."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from ltrec.device import require_finite
from ltrec.optim import CosineSchedule, Sgd, SgdRecipe
from ltrec.samplers import ClassBalanced, SamplerSettings
from ltrec.settings import PositiveInt

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ltrec.features import FeatureBank
    from ltrec.rebalancers.base import Row
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
        optimizer = Sgd(lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay)
        return HeadTrainer(self.sampler, optimizer, epochs=self.epochs, batch_size=self.batch_size, seed=seed)


class HeadTrainer:
    """Cross-entropy on resampled features; of all epochs the best on val is kept."""

    def __init__(self, sampler: SamplerSettings, optimizer: Sgd, *, epochs: int, batch_size: int, seed: int) -> None:
        self.sampler = sampler
        self.optimizer = optimizer
        self.epochs = epochs
        self.batch_size = batch_size
        self.seed = seed

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
        import torch.nn.functional as F

        from ltrec.selection import Candidate

        labels = train.labels
        sampler = self.sampler.build(labels.cpu().numpy(), seed=self.seed, epochs=self.epochs)
        size = min(self.batch_size, len(labels))
        steps = len(labels) // size
        learnt = [parameter for parameter in head.parameters() if parameter.requires_grad]
        optimizer = self.optimizer.build([], learnt)
        schedule = CosineSchedule().build(optimizer, epochs=self.epochs, steps=steps)
        best: tuple[Candidate, int, dict[str, Tensor]] | None = None
        curve: list[Row] = []
        for epoch in range(self.epochs):
            drawn = sampler.epoch(epoch)
            wanted = labels[torch.from_numpy(drawn).to(labels.device)]
            total = 0.0
            for step, features in enumerate(train.batches(drawn, size, epoch=epoch, seed=self.seed)):
                loss = F.cross_entropy(head(features), wanted[step * size : (step + 1) * size])
                value = loss.item()
                require_finite(value, "the loss", epoch=epoch, step=step, lr=self.optimizer.lr)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
                total += value
            with torch.no_grad():
                logits = head(val.plain)
            # No loss tells of the epoch's last update.
            largest = float(logits.abs().max())
            require_finite(largest, "the largest logit on val", epoch=epoch, step=steps - 1, lr=self.optimizer.lr)
            candidate = Candidate(logits, val.labels)
            curve.append({"epoch": epoch + 1, "loss": total / steps, "val": candidate.balanced})
            if best is None or candidate > best[0]:
                best = (candidate, epoch + 1, copy.deepcopy(head.state_dict()))
        assert best is not None, "there is at least one epoch"
        head.load_state_dict(best[2])
        return best[1], curve
