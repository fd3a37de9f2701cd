"""The training losses: one file each, and their union here."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ltrec.training.losses.balanced_softmax import BalancedSoftmax
from ltrec.training.losses.cross_entropy import CrossEntropy
from ltrec.training.losses.focal import Focal
from ltrec.training.losses.label_aware_smoothing import LabelAwareSmoothing
from ltrec.training.losses.ldam import Ldam
from ltrec.training.losses.logit_adjusted import LogitAdjusted
from ltrec.training.losses.vector_scaling import VectorScaling

LossSettings = Annotated[
    CrossEntropy
    | LogitAdjusted
    | BalancedSoftmax
    | VectorScaling
    | Ldam
    | Focal
    | LabelAwareSmoothing,
    Field(discriminator="name"),
]  # fmt: skip
