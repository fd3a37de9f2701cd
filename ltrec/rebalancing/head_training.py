"""Training of heads on the backbone's features, epoch and learning rate chosen on val."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Self

import numpy as np
from pydantic import model_validator

from ltrec.compute.device import require_finite
from ltrec.settings import PositiveInt
from ltrec.training.losses import LossSettings
from ltrec.training.losses.base import refuse_double_correction
from ltrec.training.losses.cross_entropy import CrossEntropy
from ltrec.training.optim import LearningRate, SgdRecipe, cosine
from ltrec.training.samplers import ClassBalanced, SamplerSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from torch import Tensor, nn
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

    from ltrec.compute.precision import Precision, ProductPrecisionSetting
    from ltrec.models.heads import Head
    from ltrec.rebalancing.feature_bank import FeatureBank
    from ltrec.rebalancing.methods.base import Row
    from ltrec.rebalancing.selection import Candidate
    from ltrec.training.samplers import Sampler


# A bank up to this size, once rounded, is rounded before the first step and not batch by batch.
_ROUNDED_BYTES = 1 << 30


class HeadTrainingSettings(SgdRecipe):
    """How a head is trained on features; an epoch draws as many as there are training images."""

    more_lrs: list[LearningRate] = []
    """Learning rates to try beside `lr`; a head for each learns from the same batches, and val chooses."""
    sampler: SamplerSettings = ClassBalanced()
    loss: LossSettings = CrossEntropy()
    """What the head is trained by."""
    epochs: PositiveInt = 10
    batch_size: PositiveInt = 128
    images: bool = False
    """Features anew in each epoch, of augmented images, as the paper did; false: those of the feature bank."""

    @model_validator(mode="after")
    def _prior_is_corrected_once(self) -> Self:
        refuse_double_correction(self.loss, self.sampler)
        return self

    def trainer(self, seed: int, precision: ProductPrecisionSetting = "fp32") -> HeadTrainer:
        """The plain object that trains as these settings say."""
        return HeadTrainer(
            partial(self.sampler.build, seed=seed, epochs=self.epochs), self.loss.build,
            epochs=self.epochs, batch_size=self.batch_size, seed=seed,
            lrs=[self.lr, *self.more_lrs], momentum=self.momentum, weight_decay=self.weight_decay,
            precision=precision,
        )  # fmt: skip


class HeadTrainer:
    """Trains heads on resampled features, by SGD with a cosine schedule; the best learning rate and epoch on val.

    Args:
        sampler: Makes the sampler for the training labels, (N,).
        loss: Makes the loss for the training images of each class, (C,): logits (B, C) and labels → the images' sum.
        epochs: Of as many draws as there are training images.
        batch_size: Draws an update.
        seed: Of the views drawn.
        lrs: Learning rates at the first step; one head learns with each.
        momentum: Of SGD.
        weight_decay: Of SGD.
        precision: Of the products in training; weights, losses and val's logits are float32.
    """

    def __init__(
        self,
        sampler: Callable[[NDArray[np.int64]], Sampler],
        loss: Callable[[NDArray[np.int64]], nn.Module],
        *,
        epochs: int,
        batch_size: int,
        seed: int,
        lrs: Sequence[float],
        momentum: float,
        weight_decay: float,
        precision: ProductPrecisionSetting = "fp32",
    ) -> None:
        self.sampler = sampler
        self.loss = loss
        self.epochs = epochs
        self.batch_size = batch_size
        self.seed = seed
        self.lrs = lrs
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.precision = precision

    def fit(self, head: Head, train: FeatureBank, val: FeatureBank) -> tuple[Row, list[Row]]:
        """Train the parameters of `head` that require a gradient, in place.

        Args:
            head: From features (N, D) to logits (N, C).
            train: Gives each epoch's batches of features, and the labels (N,).
            val: The plain features (N, D) and labels (N,) to choose on.

        Returns:
            The epoch that was kept, counted from 1, with its learning rate if there were several; a row for each epoch
            and learning rate.

        Raises:
            UserError: the loss, or a logit on val after an epoch, is no longer finite.
        """
        import torch

        from ltrec.compute.precision import of_products
        from ltrec.models.heads import logits_of
        from ltrec.rebalancing.selection import Candidate

        precision = of_products(self.precision, train.labels.device)
        if precision == "bf16" and train.precomputed and train.features.nbytes // 2 <= _ROUNDED_BYTES:
            train = replace(train, features=train.features.bfloat16())
        labels = train.labels.cpu().numpy()
        sampler = self.sampler(labels)
        loss = self.loss(np.bincount(labels, minlength=head.classes)).to(train.labels.device)
        size = min(self.batch_size, len(train.labels))
        steps = len(train.labels) // size
        heads = [head, *(copy.deepcopy(head) for _ in self.lrs[1:])]
        optimizer = self._optimizer(heads)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: cosine(step, self.epochs * steps))
        best: tuple[Candidate, Row, dict[str, Tensor]] | None = None
        curve: list[Row] = []
        for epoch in range(self.epochs):
            losses = self._epoch(heads, loss, train, sampler.epoch(epoch), size, epoch, precision, optimizer, schedule)
            for lr, learnt, mean_loss in zip(self.lrs, heads, losses, strict=True):
                logits = logits_of(learnt, val.plain)
                # No loss tells of the epoch's last update.
                largest = float(torch.stack(logits.aminmax()).abs().max())
                require_finite(largest, "the largest logit on val", epoch=epoch, step=steps - 1, lr=lr)
                candidate = Candidate(logits, val.labels)
                of_epoch: Row = {"lr": lr, "epoch": epoch + 1} if len(heads) > 1 else {"epoch": epoch + 1}
                curve.append(of_epoch | {"loss": mean_loss, "val": candidate.balanced})
                if best is None or candidate > best[0]:
                    best = (candidate, of_epoch, copy.deepcopy(learnt.state_dict()))
        assert best is not None, "there is at least one epoch"
        head.load_state_dict(best[2])
        return best[1], curve

    def _optimizer(self, heads: Sequence[Head]) -> Optimizer:
        import torch

        groups = [
            {"params": [parameter for parameter in head.parameters() if parameter.requires_grad], "lr": lr}
            for head, lr in zip(heads, self.lrs, strict=True)
        ]
        return torch.optim.SGD(groups, momentum=self.momentum, weight_decay=self.weight_decay, fused=True)

    def _epoch(
        self,
        heads: Sequence[Head],
        loss: nn.Module,
        train: FeatureBank,
        drawn: NDArray[np.int64],
        size: int,
        epoch: int,
        precision: Precision,
        optimizer: Optimizer,
        schedule: LRScheduler,
    ) -> list[float]:
        """One epoch's updates; returns each head's mean loss. The losses stay on the device until it is over."""
        import torch

        from ltrec.compute.precision import autocast

        device = train.labels.device
        wanted = train.labels[torch.from_numpy(drawn).to(device)]
        losses = []
        for step, features in enumerate(train.batches(drawn, size, epoch=epoch, seed=self.seed)):
            own = wanted[step * size : (step + 1) * size]
            with autocast(precision, device):
                logits = [head(features) for head in heads]
            of_heads = torch.stack([loss(of_head, own) for of_head in logits]) / size
            optimizer.zero_grad()
            of_heads.sum().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            losses.append(of_heads.detach())
        values = torch.stack(losses).double().cpu()
        for step, of_step in enumerate(values.tolist()):
            for lr, value in zip(self.lrs, of_step, strict=True):
                require_finite(value, "the loss", epoch=epoch, step=step, lr=lr)
        means: list[float] = values.mean(dim=0).tolist()
        return means
