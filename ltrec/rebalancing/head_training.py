"""Training of heads on the backbone's features; val chooses epoch and learning rate."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Self

import numpy as np
from pydantic import model_validator

from ltrec.compute.device import require_finite
from ltrec.settings import PositiveInt
from ltrec.training.losses import LossSettings
from ltrec.training.losses.base import prior_power, refuse_double_correction
from ltrec.training.losses.cross_entropy import CrossEntropy
from ltrec.training.optim import LearningRate, MaxNorm, SgdRecipe, cosine, row_limit
from ltrec.training.samplers import ClassBalanced, SamplerSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from torch import Tensor
    from torch.optim import Optimizer

    from ltrec.compute.precision import ProductPrecisionSetting
    from ltrec.models.heads import Head
    from ltrec.rebalancing.feature_bank import FeatureBank
    from ltrec.rebalancing.methods.base import Row
    from ltrec.rebalancing.selection import ScoredLogits
    from ltrec.training.losses.module import LossModule
    from ltrec.training.samplers import Sampler

# A bank up to this size, once rounded, is rounded before the first step and not batch by batch.
_ROUNDED_BYTES = 1 << 30


class HeadRecipe(SgdRecipe):
    """How a head is trained on features; an epoch draws as many as there are training images."""

    more_lrs: list[LearningRate] = []
    """Learning rates to try beside `lr`; a head for each learns from the same batches, and val chooses."""
    sampler: SamplerSettings = ClassBalanced()
    loss: LossSettings = CrossEntropy()
    """The loss that the head is trained with."""
    epochs: PositiveInt = 10
    batch_size: PositiveInt = 128
    max_norm: MaxNorm | None = None
    """Longest that a row of W may be (Alshammari et al. 2022): after each update longer ones are scaled down to it."""

    @model_validator(mode="after")
    def _prior_is_corrected_once(self) -> Self:
        refuse_double_correction(self.loss, self.sampler)
        return self

    def trainer(self, seed: int, precision: ProductPrecisionSetting = "fp32") -> HeadTrainer:
        """Return the plain object that trains as these settings say."""
        return HeadTrainer(
            partial(self.sampler.build, seed=seed, epochs=self.epochs), self.loss.build,
            epochs=self.epochs, batch_size=self.batch_size, seed=seed,
            lrs=[self.lr, *self.more_lrs], momentum=self.momentum, weight_decay=self.weight_decay,
            precision=precision, max_norm=self.max_norm, prior_power=partial(prior_power, self.loss, self.sampler),
        )  # fmt: skip


@dataclass(frozen=True)
class HeadTrainer:
    """Trains a head on resampled features, by SGD with a cosine schedule; val chooses learning rate and epoch.

    Attributes:
        sampler: Builds the sampler from the training labels, (N,).
        loss: Builds the loss from the class counts (C,) and the scale of a cosine head, None of another; it is told of
            each epoch, and gives the sum over the images of logits (B, C) and labels.
        epochs: The number of epochs, each of as many draws as there are training images.
        batch_size: B, the draws of an update.
        seed: The seed of the views drawn.
        lrs: Learning rates at the first step; one head is trained with each.
        momentum: SGD's momentum.
        weight_decay: SGD's weight decay.
        precision: The precision of products in training; weights, losses and val's logits are float32.
        max_norm: The longest that a row of a head's weight may be, after each update; None: any.
        prior_power: From the class counts (C,) to the prior that sampler and loss teach a head, `Head.prior_power`.
    """

    sampler: Callable[[NDArray[np.int64]], Sampler]
    loss: Callable[[NDArray[np.int64], float | None], LossModule]
    epochs: int
    batch_size: int
    seed: int
    lrs: Sequence[float]
    momentum: float
    weight_decay: float
    precision: ProductPrecisionSetting = "fp32"
    max_norm: float | None = None
    prior_power: Callable[[NDArray[np.int64]], float] = lambda _counts: 0.0

    def fit(self, head: Head, train: FeatureBank, val: FeatureBank) -> tuple[Row, list[Row]]:
        """Train those of the head's parameters that require a gradient, in place; val's plain features choose.

        Returns:
            The epoch that was kept, counted from 1, with its learning rate if there were several; a row for each epoch
            and learning rate.

        Raises:
            UserError: The loss, or a logit on val after an epoch, is no longer finite; no rows of the head train that
                `max_norm` could bound; or the loss cannot be built.
        """
        import torch

        from ltrec.compute.precision import autocast, of_products
        from ltrec.rebalancing.selection import ScoredLogits, head_logits

        device = train.labels.device
        precision = of_products(self.precision, device)
        if precision == "bf16" and train.precomputed and train.features.nbytes // 2 <= _ROUNDED_BYTES:
            train = replace(train, features=train.features.bfloat16())
        labels = train.labels.cpu().numpy()
        sampler = self.sampler(labels)
        counts = np.bincount(labels, minlength=head.classes)
        loss = self.loss(counts, head.cosine_scale).to(device)
        size = min(self.batch_size, len(labels))
        steps = len(labels) // size
        heads = [head, *(copy.deepcopy(head) for _ in self.lrs[1:])]
        optimizer = self._optimizer(heads)
        bound = None if self.max_norm is None else row_limit(heads, self.max_norm)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: cosine(step, self.epochs * steps))

        def update(features: Tensor, labels: Tensor) -> Tensor:
            """Update the heads once and return their mean losses, one each, which stay on the device."""
            with autocast(precision, device):
                logits = [trained(features) for trained in heads]
            losses = torch.stack([loss(head_logits, labels) for head_logits in logits]) / size
            optimizer.zero_grad()
            losses.sum().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            if bound is not None:
                bound()
            return losses.detach()

        best: tuple[ScoredLogits, Row, Head] | None = None
        curve: list[Row] = []
        for epoch in range(self.epochs):
            loss.start_epoch(epoch, self.epochs)
            losses = self._epoch(train, sampler.epoch(epoch), size, epoch, update)
            for lr, trained, mean_loss in zip(self.lrs, heads, losses, strict=True):
                now = copy.deepcopy(trained)
                # Logits are wanted again to break a tie only, and are large.
                scored = ScoredLogits(head_logits(now, val.plain, keep=False), val.labels)
                # The loss does not show what the epoch's last update did.
                require_finite(scored.largest, "the largest logit on val", epoch=epoch, step=steps - 1, lr=lr)
                row: Row = {"lr": lr, "epoch": epoch + 1} if len(heads) > 1 else {"epoch": epoch + 1}
                curve.append(row | {"loss": mean_loss, "val": scored.balanced})
                if best is None or scored > best[0]:
                    best = scored, row, now
        assert best is not None, "there is at least one epoch"
        _, chosen, kept = best
        head.load_state_dict(kept.state_dict())
        head.prior_power = self.prior_power(counts)
        return chosen, curve

    def _optimizer(self, heads: Sequence[Head]) -> Optimizer:
        import torch

        groups = [
            {"params": [parameter for parameter in head.parameters() if parameter.requires_grad], "lr": lr}
            for head, lr in zip(heads, self.lrs, strict=True)
        ]
        return torch.optim.SGD(groups, momentum=self.momentum, weight_decay=self.weight_decay, fused=True)

    def _epoch(
        self,
        train: FeatureBank,
        drawn: NDArray[np.int64],
        size: int,
        epoch: int,
        update: Callable[[Tensor, Tensor], Tensor],
    ) -> list[float]:
        """Update the heads with one batch of `size` draws after another; return each head's mean loss."""
        import torch

        labels = train.labels[torch.from_numpy(drawn).to(train.labels.device)]
        batches = train.batches(drawn, size, epoch=epoch, seed=self.seed)
        # The labels of the draws that fill no batch are left over.
        losses = torch.stack([update(*batch) for batch in zip(batches, torch.split(labels, size), strict=False)])
        values = losses.double().cpu()
        for step, step_losses in enumerate(values.tolist()):
            for lr, value in zip(self.lrs, step_losses, strict=True):
                require_finite(value, "the loss", epoch=epoch, step=step, lr=lr)
        means: list[float] = values.mean(dim=0).tolist()
        return means
