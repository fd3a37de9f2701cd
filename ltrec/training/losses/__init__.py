"""The training losses: one file each, and their union here."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ltrec.training.losses.cross_entropy import CrossEntropy
from ltrec.training.losses.logit_adjusted import LogitAdjusted

LossSettings = Annotated[CrossEntropy | LogitAdjusted, Field(discriminator="name")]
