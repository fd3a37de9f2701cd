"""The metadata of an exported ONNX file: export writes it, serving reads it. It needs neither torch nor onnx."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self

from pydantic import ValidationError

from ltrec import __version__
from ltrec.data.images.decoding import Geometry
from ltrec.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

ExportPrecision = Literal["fp32", "fp16", "int8"]

# onnxruntime (1.29 and later) reports its use to Microsoft unless this is set before it is loaded.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

INPUT = "images"
"""uint8 (N, H, W, 3) RGB, resized and cropped to H = W = `ModelCard.geometry.size`."""
OUTPUTS = ("logits", "probabilities")
"""float32 (N, C) at every precision."""

_FORMAT = 1
_MARK = "ltrec.format"


@dataclass(frozen=True)
class ModelCard:
    """What an exported file says about itself.

    Attributes:
        classes: The names of the C classes by label.
        geometry: How an image becomes the square that the file takes.
        mean: The mean of the RGB channels in 0…1; the file itself normalises by it.
        std: Their standard deviation in 0…1; likewise.
        method: How the head was rebalanced, such as `crt`.
        variant: The head's name in `params.yaml: rebalance`.
        precision: The backbone's precision.
        version: The version of ltrec that exported.
        unknown_below: An image whose largest probability is smaller shows no class of the task; None: all do.
    """

    classes: tuple[str, ...]
    geometry: Geometry
    mean: tuple[float, ...]
    std: tuple[float, ...]
    method: str
    variant: str
    precision: ExportPrecision = "fp32"
    version: str = __version__
    unknown_below: float | None = None

    def to_metadata(self) -> dict[str, str]:
        """Return the card as ONNX keeps it: strings by name, here with JSON in those that are not plain."""
        preprocessing = {
            "colour": "RGB",
            "resize": self.geometry.resize,
            "size": self.geometry.size,
            "interpolation": self.geometry.interpolation,
            "mean": self.mean,
            "std": self.std,
        }
        return {
            _MARK: str(_FORMAT),
            "ltrec.version": self.version,
            "classes": json.dumps(self.classes, ensure_ascii=False),
            "preprocessing": json.dumps(preprocessing),
            "method": self.method,
            "variant": self.variant,
            "precision": self.precision,
            **({} if self.unknown_below is None else {"unknown_below": repr(self.unknown_below)}),
        }

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], *, where: str) -> Self:
        """Return the card that `to_metadata` wrote.

        Raises:
            UserError: the file is not one of ltrec's, or has a format that this version cannot read, or is damaged.
        """
        if _MARK not in metadata:
            raise UserError(
                "is an ONNX model, but not one that `ltrec export` wrote: its metadata is missing", where=where
            )
        if metadata[_MARK] != str(_FORMAT):
            raise UserError(
                f"was written by ltrec {metadata.get('ltrec.version', '?')} in format {metadata[_MARK]};"
                f" ltrec {__version__} reads format {_FORMAT}",
                where=where,
            )
        try:
            preprocessing = json.loads(metadata["preprocessing"])
            return cls(
                classes=tuple(json.loads(metadata["classes"])),
                geometry=Geometry(
                    size=preprocessing["size"],
                    resize=preprocessing["resize"],
                    # Files that name none are from before there was a choice.
                    interpolation=preprocessing.get("interpolation", "bicubic"),
                ),
                mean=tuple(preprocessing["mean"]),
                std=tuple(preprocessing["std"]),
                method=metadata["method"],
                variant=metadata["variant"],
                precision=metadata["precision"],  # type: ignore[arg-type]
                version=metadata["ltrec.version"],
                unknown_below=float(metadata["unknown_below"]) if "unknown_below" in metadata else None,
            )
        except (KeyError, TypeError, ValueError, ValidationError) as error:
            remedy = "`ltrec export --onnx` writes it anew"
            raise UserError(f"its metadata is damaged ({error}); {remedy}", where=where) from None
