"""The joint head of a backbone that was kept as it is: a linear probe. N images, D feature dimensions, C classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ltrec.compute.precision import ProductPrecisionSetting
from ltrec.rebalancing.head_training import HeadRecipe
from ltrec.settings import PositiveInt
from ltrec.training.optim import LearningRate, WeightDecay
from ltrec.training.samplers import InstanceBalanced, SamplerSettings

if TYPE_CHECKING:
    from ltrec.models.heads import CosineHead, LinearHead
    from ltrec.rebalancing.feature_bank import FeatureBank
    from ltrec.rebalancing.methods.base import Row


class ProbeSettings(HeadRecipe):
    """How the joint classifier is fitted on the features where `represent.epochs` is 0; else nothing reads it.

    Learning rates and weight decay are as for features with a mean square of 1, to which all are scaled for the fit:
    frozen networks give features of very different sizes.
    """

    lr: LearningRate = 0.1
    more_lrs: list[LearningRate] = [0.01, 0.03, 0.3]
    """Learning rates to try beside `lr`; a head for each learns from the same batches, and val chooses."""
    weight_decay: WeightDecay = 5e-4
    sampler: SamplerSettings = InstanceBalanced()
    epochs: PositiveInt = 20
    precision: ProductPrecisionSetting = "auto"
    """Precision of the products; W and b are float32. auto: bf16 where the processor has it, on a CPU too."""

    def fit(self, head: LinearHead | CosineHead, train: FeatureBank, val: FeatureBank, *, seed: int) -> Row:
        """Train a new head in place and return the epoch and the learning rate that val chose.

        Raises:
            UserError: The loss, or a logit on val, is no longer finite.
        """
        import torch

        from ltrec.models.heads.linear import OnScaledFeatures

        square = float(torch.linalg.vector_norm(train.plain)) ** 2 / train.plain.numel()
        factor = square**-0.5 if square else 1.0
        scaled = OnScaledFeatures(head, factor)
        chosen, _ = self.trainer(seed, self.precision).fit(scaled, train, val)
        head.prior_power = scaled.prior_power
        with torch.no_grad():
            head.weight.mul_(factor)  # W(fx) = (fW)x; to cosines it makes no difference
        return chosen
