"""Distribution alignment."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from ltrec.rebalancing.adjusting import Adjustable
from ltrec.rebalancing.complexity import Complexity
from ltrec.rebalancing.head_training import HeadRecipe, HeadTrainer
from ltrec.rebalancing.methods.base import FitResult, Rebalancer
from ltrec.settings import PositiveInt
from ltrec.training.losses.base import Loss, log_prior, prior_power
from ltrec.training.optim import LearningRate, SgdRecipe
from ltrec.training.samplers import InstanceBalanced

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from ltrec.models.heads import Head
    from ltrec.rebalancing.feature_bank import FeatureBank
    from ltrec.training.losses.base import Constants


class DisAlignSettings(Adjustable, SgdRecipe):
    """A scale and an offset a class on the joint logits, as far as each image needs them."""

    complexity: ClassVar = Complexity.TRAINED
    needs_linear_joint: ClassVar[bool] = True

    method: Literal["disalign"]
    more_lrs: list[LearningRate] = []
    """Learning rates to try beside `lr`; an alignment for each learns from the same batches, and val chooses."""
    epochs: PositiveInt = 10
    batch_size: PositiveInt = 128
    rho: Annotated[float, Field(ge=0, le=10)] = 1.2
    """ρ: the loss of an image weighs ∝ π_y^(−ρ); 1 counts each class the same, 0 each image."""

    def build(self, seed: int) -> DisAlign:
        recipe = HeadRecipe(
            sampler=InstanceBalanced(),
            **self.model_dump(include=HeadRecipe.model_fields.keys() & type(self).model_fields),
        )
        loss = GeneralisedReweighting(rho=self.rho)
        power = partial(prior_power, loss, recipe.sampler)
        return DisAlign(replace(recipe.trainer(seed), loss=loss.build, prior_power=power))


class GeneralisedReweighting(Loss):
    """Cross-entropy that weighs each class by a power of its rarity (Zhang et al. 2021, equation 9)."""

    name: Literal["generalised_reweighting"] = "generalised_reweighting"
    corrects_prior: ClassVar[bool] = True
    rho: float
    """ρ."""

    def corrected_power(self, class_counts: NDArray[np.int64]) -> float:  # noqa: ARG002 - of the weights as they are
        """Return ρ."""
        return self.rho

    def constants(self, class_counts: NDArray[np.int64]) -> Constants:
        """Return w_j = π_j^(−ρ) / Σ_i π_i^(1−ρ), (C,), whose mean over the training images is 1."""
        log_pi = log_prior(class_counts)
        return {"weights": np.exp(-self.rho * log_pi) / np.exp((1 - self.rho) * log_pi).sum()}

    def per_image(self, logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:  # type: ignore[override]
        """Return −w_y·log softmax(z)_y of each image, (B,)."""
        import torch.nn.functional as F

        return F.cross_entropy(logits, labels, weight=weights, reduction="none")


@dataclass(frozen=True)
class DisAlign(Rebalancer):
    """Learns α, β, v and c in σ·(α_j·z_j + β_j) + (1 − σ)·z_j, σ = sigmoid(v·x + c) (Zhang et al. 2021, equation 6).

    Training starts at the joint logits, with α = 1 and all else 0, on instance-balanced draws.
    """

    trainer: HeadTrainer

    def fit(self, train: FeatureBank, val: FeatureBank, joint: Head) -> FitResult:
        import torch

        from ltrec.models.heads import DisAlignHead, LinearHead
        from ltrec.models.heads.disalign import AlignedLogits
        from ltrec.models.heads.linear import linear_of
        from ltrec.rebalancing.beside_logits import FeaturesAndLogits, can_be_kept, plain_beside_logits

        weight, bias = linear_of(joint).cloned_parameters()
        linear = LinearHead(weight, bias).to(weight.device)
        scale, shift = torch.ones_like(weight[:, 0]), torch.zeros_like(weight[:, 0])
        confidence = torch.zeros_like(weight[0])
        head = DisAlignHead(weight, bias, scale, shift, confidence, torch.zeros_like(confidence[0])).to(weight.device)
        if can_be_kept(joint.classes, train, val):
            # The joint logits are computed once, instead of at each step.
            on_logits = AlignedLogits(head)
            fitted = self.trainer.fit(on_logits, FeaturesAndLogits.of(train, linear), plain_beside_logits(val, linear))
            head.prior_power = on_logits.prior_power
        else:
            fitted = self.trainer.fit(head, train, val)
        return FitResult(head, *fitted)
