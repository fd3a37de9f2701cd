"""The `export` section of `params.yaml`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ltrec.serving.abstaining import AbstainSettings
from ltrec.serving.model_card import ExportPrecision
from ltrec.settings import PositiveFloat, PositiveInt, Settings, Text

CHAMPION = "champion"


class ExportSettings(Settings):
    """What is exported, and how exact it must be."""

    variant: str = CHAMPION
    """A name under `rebalance`, or `champion`: the best on val."""
    precision: ExportPrecision = "fp32"
    """Of the backbone; the head computes in fp32."""
    prior: Literal["uniform", "train"] | dict[Text, PositiveFloat] | None = None
    """The shares of the classes where the model will work: all alike, those of the training list, or a number for each
    class name. null: those that the head answers for by itself, uniform ones where it was rebalanced."""
    abstain: AbstainSettings | None = None
    """Give no answer to the most doubtful images, by a threshold that is chosen on val; null: answer always."""
    opset: Annotated[int, Field(ge=18, le=23)] = 20
    """Of ONNX; an older one for older runtimes."""
    check_images: PositiveInt = 256
    """Validation images on which the file is compared with PyTorch; all, if there are fewer."""
    calibration_images: PositiveInt = 256
    """Training images from which int8 takes the ranges of the activations."""
    max_logit_difference: PositiveFloat = 1e-4
    """What an fp32 file may differ from PyTorch in any logit, as a share of the largest, which counts as 1 at least."""
    min_agreement: Annotated[float, Field(ge=0, le=1)] = 0.95
    """Fraction of the images that an fp16 or int8 file must give the class that PyTorch gives."""
