"""Random views of an image for training, by torchvision's transforms, repeatable image by image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from ltrec.data.decoding import Geometry, square
from ltrec.settings import Count, NonNegativeFloat, Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from PIL import Image
    from torch import Tensor

    View = Callable[[Image.Image, int], NDArray[np.uint8]]


class NoCrop(Settings):
    """The same square as in evaluation."""

    name: Literal["none"] = "none"

    def build(self, geometry: Geometry) -> Callable[[Image.Image], Tensor]:
        return lambda image: _to_tensor(square(image, geometry))


class PadCrop(Settings):
    """The evaluation square, padded with black, and a random square out of it: the CIFAR recipe."""

    name: Literal["pad"] = "pad"
    padding: Count = 4
    """Pixels added on each side."""

    def build(self, geometry: Geometry) -> Callable[[Image.Image], Tensor]:
        from torchvision.transforms import v2

        crop = v2.RandomCrop(geometry.size, padding=self.padding)
        return lambda image: crop(_to_tensor(square(image, geometry)))


class ResizedCrop(Settings):
    """A random part of the image, resized: the ImageNet recipe (torchvision's RandomResizedCrop)."""

    name: Literal["resized"] = "resized"
    area: tuple[Annotated[float, Field(gt=0, le=1)], Annotated[float, Field(gt=0, le=1)]] = (0.08, 1.0)
    """Smallest and largest part of the image's area."""

    @model_validator(mode="after")
    def _smallest_first(self) -> Self:
        if self.area[0] > self.area[1]:
            raise ValueError(f"area must be [smallest, largest], got {list(self.area)}")
        return self

    def build(self, geometry: Geometry) -> Callable[[Image.Image], Tensor]:
        from torchvision.transforms import v2

        crop = v2.RandomResizedCrop(geometry.size, scale=self.area, antialias=True)
        return lambda image: crop(_to_tensor(image))


CropSettings = Annotated[NoCrop | PadCrop | ResizedCrop, Field(discriminator="name")]


class AugmentSettings(Settings):
    """How training views differ from the evaluation view."""

    crop: CropSettings = ResizedCrop()
    flip: bool = True
    """Mirror half of the images; wrong for digits and text."""
    jitter: NonNegativeFloat = 0.0
    """Strength of the change in brightness, contrast and saturation; the paper's ImageNet-LT recipe has 0.4."""

    def build(self, geometry: Geometry) -> View:
        """A function (image, seed) → uint8 (H, W, 3): the same view for the same seed, in any process."""
        import torch
        from torchvision.transforms import v2

        steps: list[Callable[[Tensor], Tensor]] = []
        if self.flip:
            steps.append(v2.RandomHorizontalFlip())
        if self.jitter:
            steps.append(v2.ColorJitter(self.jitter, self.jitter, self.jitter))
        crop = self.crop.build(geometry)

        def view(image: Image.Image, seed: int) -> NDArray[np.uint8]:
            # torchvision draws from the global generator; the caller's is left as it was.
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(seed)  # torch.manual_seed would reset the GPU's too
                pixels = crop(image)
                for step in steps:
                    pixels = step(pixels)
            return np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())

        return view


def _to_tensor(pixels: Image.Image | NDArray[np.uint8]) -> Tensor:
    """uint8 (H, W, 3) → (3, H, W)."""
    import torch

    return torch.from_numpy(np.array(pixels, dtype=np.uint8)).permute(2, 0, 1)
