"""What a network sees of an image: the square that is cut from it, and the normalisation of its colours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from ltrec.data.images.decoding import CropMode, Geometry, Interpolation
from ltrec.errors import UserError
from ltrec.settings import PositiveInt, Settings, conflict

Channel = Annotated[float, Field(ge=0, le=1)]
Deviation = Annotated[float, Field(gt=0, le=1)]
Mean = tuple[Channel, Channel, Channel]
Std = tuple[Deviation, Deviation, Deviation]


@dataclass(frozen=True)
class Preprocessing:
    """All that happens to a decoded image before the backbone.

    Attributes:
        geometry: How the evaluation square is cut.
        mean: The mean of each colour channel, in 0…1, that is taken off.
        std: The standard deviation of each, likewise, that is divided by.
    """

    geometry: Geometry
    mean: Mean
    std: Std

    def settings(self) -> dict[str, Any]:
        """Return all of it by the names that `ImageSettings` has for it."""
        return self.geometry.model_dump() | {"mean": self.mean, "std": self.std}


IMAGENET = Preprocessing(Geometry(size=224, resize=256), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""How the paper and most of torchvision's weights see images."""


class ImageSettings(Settings):
    """What the network sees: the evaluation transform and the normalisation.

    What is left out is what torchvision or timm publish with the weights that `backbone.weights` names, else ImageNet's
    usual: 256 → 224 pixels, bilinear.
    """

    size: PositiveInt | None = None
    """Side of the square, in pixels; null: as the weights were trained, else 224."""
    resize: PositiveInt | None = None
    """Short side before the centre crop, in pixels; null: in proportion to `size` as for the weights, else 8/7 of it,
    as in 256 → 224."""
    interpolation: Interpolation | None = None
    """How pixels are computed from an image's, antialiased; null: as for the weights, else bilinear."""
    crop: CropMode | None = None
    """What is taken of an image that is no square: centre, its middle; squash, all of it, both sides made equal; null:
    as for the weights, else centre."""
    mean: Mean | None = None
    """Mean of the colour channels in 0…1; null: that of the weights, else ImageNet's 0.485, 0.456, 0.406."""
    std: Std | None = None
    """Standard deviation of the colour channels in 0…1; null: that of the weights, else 0.229, 0.224, 0.225."""

    @model_validator(mode="after")
    def _crop_fits(self) -> Self:
        if self.size is not None and self.resize is not None and self.resize < self.size:
            raise conflict(("resize",), f"must be at least size ({self.size}), got {self.resize}")
        return self

    def completed(self, published: Preprocessing | None = None) -> Preprocessing:
        """Return the preprocessing: what these settings leave out is taken from what is published with the weights.

        Raises:
            UserError: The short side that is set is smaller than the square of the weights.
        """
        usual = published or IMAGENET
        size = self.size or usual.geometry.size
        resize = self.resize or round(size * usual.geometry.resize / usual.geometry.size)
        if resize < size:
            where = "params.yaml: represent.image.resize"
            raise UserError(f"must be at least size (here {size}, that of the weights), got {resize}", where=where)
        geometry = Geometry(
            size=size, resize=resize,
            interpolation=self.interpolation or usual.geometry.interpolation, crop=self.crop or usual.geometry.crop,
        )  # fmt: skip
        return Preprocessing(geometry, self.mean or usual.mean, self.std or usual.std)

    def differing(self, published: Preprocessing) -> list[str]:
        """Return where these settings differ from what is published with the weights, such as `resize 256, not 232`."""
        return [
            f"{name} {_spelt(wanted)}, not {_spelt(usual)}"
            for name, usual in published.settings().items()
            if (wanted := getattr(self, name)) is not None and wanted != usual
        ]


def _spelt(value: object) -> str:
    return ", ".join(f"{number:.3g}" for number in value) if isinstance(value, tuple) else str(value)
