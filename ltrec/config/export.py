"""The `export` section of `params.yaml`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ltrec.serving.model_card import ExportPrecision
from ltrec.settings import PositiveFloat, PositiveInt, Settings

CHAMPION = "champion"


class ExportSettings(Settings):
    """What is exported, and how exact it must be."""

    variant: str = CHAMPION
    """A name under `rebalance`, or `champion`: the best on val."""
    precision: ExportPrecision = "fp32"
    """Of the backbone; the head computes in fp32."""
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
