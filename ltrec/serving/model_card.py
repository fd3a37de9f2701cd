"""The metadata of an exported ONNX file: export writes it, serving reads it. It needs neither torch nor onnx."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

from pydantic import ValidationError

from ltrec import __version__
from ltrec.data.images.decoding import Geometry
from ltrec.errors import UserError, one_line

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
# What no file of ltrec's comes near, and what would take gigabytes in each decoding thread.
_LARGEST_SIDE = 4096
_LONGEST_ENTRY = 2**24
_SHOWN = 100
_BY_CLASS = ("class_counts", "head_prior", "prior")
_LARGEST_NUMBER = 2**53
_ROUNDING = 1e-6


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
        unknown_below: An image for which the head's own largest probability, before another prior is applied, is
            smaller shows no class of the task; None: all do.
        abstain_below: An image whose largest probability is smaller is too doubtful for an answer; None: none is.
        class_counts: How many training images each class has, (C,); None: files from before it was written.
        head_prior: The class prior q that the head answers for, (C,); None: it is not known, or has zeros.
        prior: The class prior that the file's logits answer for in place of `head_prior`, (C,); None: there is none.
        weights_license: The licence of the published weights that the backbone began with; None: none is known.
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
    weights_license: str | None = None
    abstain_below: float | None = None
    class_counts: tuple[int, ...] | None = None
    head_prior: tuple[float, ...] | None = None
    prior: tuple[float, ...] | None = None

    @property
    def answered_prior(self) -> tuple[float, ...] | None:
        """Return the class prior that the file's probabilities answer for, (C,); None: it is not known."""
        return self.prior or self.head_prior

    def to_metadata(self) -> dict[str, str]:
        """Return the card as ONNX keeps it: strings by name, here with JSON in those that are not plain."""
        preprocessing = {
            "colour": "RGB",
            "resize": self.geometry.resize,
            "size": self.geometry.size,
            "interpolation": self.geometry.interpolation,
            **({} if self.geometry.crop == "centre" else {"crop": self.geometry.crop}),
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
            **({} if self.weights_license is None else {"weights_license": self.weights_license}),
            **({} if self.abstain_below is None else {"abstain_below": repr(self.abstain_below)}),
            **{name: json.dumps(values) for name in _BY_CLASS if (values := getattr(self, name)) is not None},
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
            version, written = (_short(metadata.get(key, "?")) for key in ("ltrec.version", _MARK))
            raise UserError(
                f"was written by ltrec {version} in format {written}; ltrec {__version__} reads format {_FORMAT}",
                where=where,
            )
        try:
            preprocessing = _parsed(metadata["preprocessing"], dict)
            return cls(
                classes=_names(_parsed(metadata["classes"], list)),
                geometry=_geometry(preprocessing),
                mean=_channels(preprocessing["mean"]),
                std=_channels(preprocessing["std"]),
                method=metadata["method"],
                variant=metadata["variant"],
                precision=_precision(metadata["precision"]),
                version=metadata["ltrec.version"],
                unknown_below=_fraction("unknown_below", metadata),
                weights_license=metadata.get("weights_license"),
                abstain_below=_fraction("abstain_below", metadata),
                class_counts=_by_class("class_counts", metadata),
                head_prior=_by_class("head_prior", metadata),
                prior=_by_class("prior", metadata),
            )
        except (KeyError, ValueError, OverflowError, RecursionError) as error:
            remedy = "`ltrec export --onnx` writes it anew"
            raise UserError(f"its metadata is damaged ({_reason(error)}); {remedy}", where=where) from None


def _parsed(text: str, kind: type) -> Any:
    """Return what JSON says, which must be a list or an object."""
    if len(text) > _LONGEST_ENTRY:
        raise ValueError(f"an entry of {len(text):,} characters; at most {_LONGEST_ENTRY:,} are read")
    value = json.loads(text)
    if not isinstance(value, kind):
        raise ValueError(f"{_short(text)} is not a {kind.__name__}")  # noqa: TRY004 - it is the file that is wrong
    return value


def _names(values: list[Any]) -> tuple[str, ...]:
    if not values or not all(isinstance(value, str) for value in values):
        raise ValueError(f"classes: {_short(repr(values))} are not names")
    "".join(values).encode()  # half of a surrogate pair is no text, and cannot be printed
    return tuple(values)


def _geometry(preprocessing: dict[str, Any]) -> Geometry:
    # Files that name no interpolation are from before there was a choice; the usual crop is not named.
    interpolation, crop = preprocessing.get("interpolation", "bicubic"), preprocessing.get("crop", "centre")
    size, resize = preprocessing["size"], preprocessing["resize"]
    geometry = Geometry(size=size, resize=resize, interpolation=interpolation, crop=crop)
    if not geometry.size <= geometry.resize <= _LARGEST_SIDE:
        raise ValueError(
            f"resize: must be from size, {_short(str(geometry.size))}, to {_LARGEST_SIDE},"
            f" got {_short(str(geometry.resize))}"
        )
    return geometry


def _channels(values: Any) -> tuple[float, ...]:
    if not isinstance(values, list) or len(values) != 3 or not all(type(value) in {int, float} for value in values):
        raise ValueError(f"mean and std are three numbers each, got {_short(repr(values))}")
    if not all(math.isfinite(value) for value in values):
        raise ValueError(f"mean and std are finite, got {_short(repr(values))}")
    return tuple(values)


def _precision(text: str) -> ExportPrecision:
    if text not in get_args(ExportPrecision):
        raise ValueError(f"precision: {', '.join(get_args(ExportPrecision))} are known, got {_short(text)}")
    return text  # type: ignore[return-value]


def _fraction(name: str, metadata: Mapping[str, str]) -> float | None:
    if name not in metadata:
        return None
    value = float(metadata[name])
    if not 0 <= value <= 1:
        raise ValueError(f"{name}: must be from 0 to 1, got {value}")
    return value


def _by_class(name: str, metadata: Mapping[str, str]) -> tuple[Any, ...] | None:
    """Return an entry that has a number for each class; all but the counts are priors, positive and of sum 1."""
    if name not in metadata:
        return None
    values, classes = _parsed(metadata[name], list), _parsed(metadata["classes"], list)
    kinds, least = ({int}, 0) if name == "class_counts" else ({int, float}, math.ulp(0.0))
    if len(values) != len(classes) or not all(type(value) in kinds for value in values):
        raise ValueError(f"{name}: has no number for each class: {_short(repr(values))}")
    if not all(least <= value < _LARGEST_NUMBER for value in values):
        raise ValueError(f"{name}: has numbers that are too small or too large: {_short(repr(values))}")
    if name != "class_counts" and abs(sum(values) - 1) > _ROUNDING:
        raise ValueError(f"{name}: sums to {sum(values):.6g}, not to 1")
    return tuple(values)


def _reason(error: Exception) -> str:
    """Return in one line why the metadata cannot be read."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}, got {_short(repr(first['input']))}"
    if isinstance(error, KeyError):
        return f"{error} is missing"
    return one_line(error, _SHOWN)


def _short(text: str) -> str:
    return one_line(ValueError(text[: 2 * _SHOWN]), _SHOWN)
