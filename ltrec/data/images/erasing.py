"""A rectangle of each training image wiped out. B images, H = W pixels."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from ltrec.settings import PositiveInt, Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from torch import Tensor

    from ltrec.data.images.augmentation import Step

_TRIES = 10


class Cutout(Settings):
    """A square in the mean colour around a random pixel, cut off at the border (DeVries and Taylor 2017)."""

    name: Literal["cutout"] = "cutout"
    size: PositiveInt = 16
    """Its side in pixels: 16 for CIFAR-10, 8 for CIFAR-100 in the paper."""

    def build(self, mean: Sequence[float], std: Sequence[float]) -> Step:  # noqa: ARG002 - one signature for all
        return Square(self.size, mean)


class RandomErasing(Settings):
    """A rectangle of random area, aspect and place in some images: torchvision's (Zhong et al., AAAI 2020)."""

    name: Literal["random_erasing"] = "random_erasing"
    probability: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the images that lose a rectangle."""
    area: tuple[Annotated[float, Field(gt=0, lt=1)], Annotated[float, Field(gt=0, lt=1)]] = (0.02, 0.33)
    """The smallest and the largest share of the image's area."""
    aspect: tuple[Annotated[float, Field(gt=0, le=100)], Annotated[float, Field(gt=0, le=100)]] = (0.3, 3.3)
    """The smallest and the largest height over width."""
    value: Literal["mean", "random"] | Annotated[float, Field(ge=0, le=255)] = "mean"
    """What comes in its place: the mean colour, which is 0 to the network, noise around it, or a gray level."""

    @model_validator(mode="after")
    def _smallest_first(self) -> Self:
        for name, (least, most) in (("area", self.area), ("aspect", self.aspect)):
            if least > most:
                raise ValueError(f"{name} must be [smallest, largest], got {[least, most]}")
        return self

    def build(self, mean: Sequence[float], std: Sequence[float]) -> Step:
        if self.value == "random":
            return Rectangle(self.probability, self.area, self.aspect, mean, std)
        colour = mean if self.value == "mean" else [self.value / 255] * 3
        return Rectangle(self.probability, self.area, self.aspect, colour)


EraseSettings = Annotated[Cutout | RandomErasing, Field(discriminator="name")]


class Square:
    """Wipes out a square of `side` pixels around a random pixel of each image.

    Args:
        side: Its side; what lies outside of the image is cut off.
        colour: What it is filled with, red, green and blue in 0…1.
    """

    draws = 2
    on_host = False

    def __init__(self, side: int, colour: Sequence[float]) -> None:
        self._side, self._colour = side, colour

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        size = images.shape[1]
        centres = (draws * size).long().clamp_(max=size - 1)
        first = centres - self._side // 2
        return _filled(images, first, first + self._side, _levels(self._colour, images))


class Rectangle:
    """Wipes out a rectangle of random area and aspect in some images, as torchvision's RandomErasing does.

    Up to ten times an area and an aspect are drawn, until the rectangle is smaller than the image; else it stays whole.

    Args:
        probability: Of an image to lose a rectangle.
        area: The smallest and the largest share of the image's area.
        aspect: The smallest and the largest height over width.
        colour: What it is filled with, red, green and blue in 0…1.
        deviation: The standard deviation of normal noise around the colour, likewise; None: no noise.
    """

    draws = 1 + 2 * _TRIES + 2 + 1
    on_host = False

    def __init__(
        self,
        probability: float,
        area: tuple[float, float],
        aspect: tuple[float, float],
        colour: Sequence[float],
        deviation: Sequence[float] | None = None,
    ) -> None:
        self._probability, self._area, self._aspect = probability, area, aspect
        self._colour, self._deviation = colour, deviation

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        import torch

        size = images.shape[1]
        came, areas, aspects, place, seeds = torch.split(draws, [1, _TRIES, _TRIES, 2, 1], dim=1)
        least, most = self._area
        pixels = size**2 * (least + areas * (most - least))
        low, high = (math.log(end) for end in self._aspect)
        aspect = torch.exp(low + aspects * (high - low))
        sides = (
            torch.stack([(pixels * aspect).sqrt(), (pixels / aspect).sqrt()], dim=2).round_().long()
        )  # (B, tries, 2)
        fits = (sides < size).all(dim=2)
        first_fit = fits.byte().argmax(dim=1)[:, None, None].expand(-1, 1, 2)
        erased = (came[:, 0] < self._probability) & fits.any(dim=1)
        sides = sides.gather(1, first_fit)[:, 0] * erased[:, None]
        free = size - sides
        first = torch.minimum((place * (free + 1)).long(), free)
        fill = _levels(self._colour, images)
        if self._deviation is not None:
            noise = _normal_noise(seeds[:, 0], images.shape[1:])
            spread = torch.tensor(self._deviation, device=images.device) * 255
            fill = (torch.tensor(self._colour, device=images.device) * 255 + noise * spread).clamp_(0, 255)
            fill = fill if images.is_floating_point() else fill.round_().to(images.dtype)
        return _filled(images, first, first + sides, fill)


def _levels(colour: Sequence[float], images: Tensor) -> Tensor:
    """Return a colour in 0…1 as levels of the images' type, (3,): for uint8 the nearest ones."""
    import torch

    levels = [255 * share for share in colour]
    whole = levels if images.is_floating_point() else [round(level) for level in levels]
    return torch.tensor(whole, dtype=images.dtype, device=images.device)


def _filled(images: Tensor, first: Tensor, end: Tensor, fill: Tensor) -> Tensor:
    """Return images (B, H, W, 3) with `fill` from rows and columns `first` (B, 2) to `end` (B, 2), exclusive."""
    import torch

    along = torch.arange(images.shape[1], device=images.device)
    inside = (along >= first[:, :, None]) & (along < end[:, :, None])  # (B, 2, H)
    return torch.where((inside[:, 0, :, None] & inside[:, 1, None, :])[..., None], fill, images)


def _normal_noise(seeds: Tensor, shape: torch.Size) -> Tensor:
    """Return normal noise for images of a shape (H, W, 3), (B, H, W, 3), a function of each one's seed in 0…1 alone.

    The generators of PyTorch have no seed for each image of a batch; a hash of seed and place does.
    """
    import torch

    place = torch.arange(shape.numel(), device=seeds.device)
    bits = _hashed(_hashed((seeds.double() * 2**32).long())[:, None] ^ place)
    uniform = (bits.double() + 0.5) / 2**32
    return (torch.erfinv(2 * uniform - 1) * math.sqrt(2)).float().reshape(-1, *shape)


def _hashed(bits: Tensor) -> Tensor:
    """Return 32 bits that look random, of 32 bits each."""
    for shift, factor in ((16, 0x7FEB352D), (15, 0x46CA68B5)):
        bits = ((bits ^ (bits >> shift)) * factor) & 0xFFFFFFFF
    return bits ^ (bits >> 16)
