"""Random views of images for training: the crop where an image is decoded, the rest in batches on the device.

The distributions are those of torchvision's transforms. B images, H = W pixels.
"""

from __future__ import annotations

import functools
import itertools
import math
from random import Random
from typing import TYPE_CHECKING, Annotated, Literal, Protocol, Self

from pydantic import Field, model_validator

from ltrec.compute.device import sent
from ltrec.data.images.erasing import EraseSettings
from ltrec.data.images.policies import PolicySettings
from ltrec.settings import Count, NonNegativeFloat, Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch
    from torch import Tensor

    from ltrec.data.images.decoding import Box

    Crop = Callable[[int, int, int], Box]

# The brightness of red, green and blue, as torchvision and Pillow have it.
_GRAY = (0.2989, 0.587, 0.114)
# The least and the largest width over height of a resized crop: torchvision's.
_ASPECTS = 3 / 4, 4 / 3


class Step(Protocol):
    """A random change of each image of a batch."""

    draws: int
    """How many random numbers it takes for an image."""
    on_host: bool
    """Whether it wants them in the host's memory: to read them from a GPU's, the host would wait for the GPU."""

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        """Return changed images (B, H, W, 3) in 0…255, given such images and draws (B, `draws`), uniform in 0…1."""
        ...


class Augment:
    """A recipe for training views.

    Args:
        crop: Returns the part of an image that becomes the square, for its width, its height and a seed; None: the
            evaluation square is taken.
        steps: The changes that follow, on whole batches.
    """

    def __init__(self, crop: Crop | None, steps: Sequence[Step]) -> None:
        self.crop = crop
        self._steps = tuple(steps)
        self.draws = sum(step.draws for step in self._steps)

    def __call__(self, squares: Tensor, draws: Tensor) -> Tensor:
        """Return a batch changed, (B, H, W, 3) in 0…255: uint8 or, where colours were changed, float32.

        Args:
            squares: uint8 (B, H, W, 3), on any device.
            draws: Float (B, `draws`), uniform in 0…1, in the host's memory; nothing else is random.
        """
        start, there = 0, sent(draws, squares.device)
        for step in self._steps:
            squares = step(squares, (draws if step.on_host else there)[:, start : start + step.draws])
            start += step.draws
        return squares


class _Crop(Settings):
    def on_host(self) -> Crop | None:
        """Return what chooses the part of an image that is decoded; None: the evaluation square is."""
        return None

    def on_device(self) -> list[Step]:
        """Return what changes the squares of a batch."""
        return []


class NoCrop(_Crop):
    """The same square as in evaluation."""

    name: Literal["none"] = "none"


class PadCrop(_Crop):
    """The evaluation square, padded with black, and a random square out of it: the CIFAR recipe."""

    name: Literal["pad"] = "pad"
    padding: Count = 4
    """Pixels added on each side."""

    def on_device(self) -> list[Step]:
        return [Shift(self.padding)] if self.padding else []


class ResizedCrop(_Crop):
    """A random part of the image, resized: the ImageNet recipe (torchvision's RandomResizedCrop)."""

    name: Literal["resized"] = "resized"
    area: tuple[Annotated[float, Field(gt=0, le=1)], Annotated[float, Field(gt=0, le=1)]] = (0.08, 1.0)
    """The smallest and the largest share of the image's area."""

    @model_validator(mode="after")
    def _smallest_first(self) -> Self:
        if self.area[0] > self.area[1]:
            raise ValueError(f"area must be [smallest, largest], got {list(self.area)}")
        return self

    def on_host(self) -> Crop | None:
        return self.part

    def part(self, width: int, height: int, seed: int) -> Box:
        """Return a random part of an image of these sides.

        Up to ten times an area and an aspect are drawn, until they fit into the image; else the middle is taken. The
        distribution is torchvision's, whose own drawing takes a tenth of the time of the whole decoding.
        """
        random, (least, most) = Random(seed), _ASPECTS  # noqa: S311
        for _ in range(10):
            area = width * height * random.uniform(*self.area)
            aspect = math.exp(random.uniform(math.log(least), math.log(most)))
            w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < w <= width and 0 < h <= height:
                left, top = random.randrange(width - w + 1), random.randrange(height - h + 1)
                return left, top, left + w, top + h
        w, h = min(width, round(height * most)), min(height, round(width / least))
        left, top = (width - w) // 2, (height - h) // 2
        return left, top, left + w, top + h


CropSettings = Annotated[NoCrop | PadCrop | ResizedCrop, Field(discriminator="name")]


class AugmentSettings(Settings):
    """How training views differ from the evaluation view."""

    crop: CropSettings = ResizedCrop()
    flip: bool = True
    """Mirror half of the images; wrong for digits and text."""
    jitter: NonNegativeFloat = 0.0
    """Strength of random changes in brightness, contrast and saturation; the paper's ImageNet-LT recipe has 0.4."""
    policy: PolicySettings | None = None
    """Random operations on shape and colour after crop and flip, an image's own draw; null: none."""
    erase: EraseSettings | None = None
    """What is wiped out of an image when all else is done; null: nothing."""

    def build(self, mean: Sequence[float] | None = None, std: Sequence[float] | None = None) -> Augment:
        """Return the views.

        Args:
            mean: The mean of each colour channel, in 0…1, as the network takes it off; what `erase` fills with.
            std: The standard deviation of each, likewise.
        """
        steps = self.crop.on_device()
        if self.flip:
            steps.append(Flip())
        if self.policy is not None:
            steps.append(self.policy.build())
        if self.jitter:
            steps.append(ColorJitter(self.jitter))
        if self.erase is not None:
            assert mean is not None, "what is erased takes the images' mean colour"
            assert std is not None, "and noise their standard deviation"
            steps.append(self.erase.build(mean, std))
        return Augment(self.crop.on_host(), steps)


class Shift:
    """Moves each image by up to `padding` pixels along both axes; the pixels that come in are black."""

    draws = 2
    on_host = False

    def __init__(self, padding: int) -> None:
        self.padding = padding

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        import torch
        import torch.nn.functional as F

        size, p = images.shape[1], self.padding
        # A pixel's three bytes are copied together as one element of the gather.
        padded = F.pad(images, (0, 0, p, p, p, p))
        offsets = (draws * (2 * p + 1)).long().clamp_(max=2 * p)  # a draw next to 1 may round up to it
        along = torch.arange(size, device=images.device)
        rows, columns = (offsets[:, axis, None] + along for axis in (0, 1))
        return padded[
            torch.arange(len(images), device=images.device)[:, None, None], rows[:, :, None], columns[:, None]
        ]


class Flip:
    """Mirrors half of the images."""

    draws = 1
    on_host = False

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        import torch

        return torch.where((draws < 0.5)[:, :, None, None], images.flip(2), images)


class ColorJitter:
    """Brightness, contrast and saturation of each image, times factors in 1 ± strength, in random order.

    Each is a blend f·x + (1 − f)·y of the image x: for brightness with y = 0, for contrast with the mean of its gray
    image, for saturation with its gray image; cut off at 0 and 255. Each is thus linear in the colours of a pixel.
    """

    draws = 4
    on_host = False

    def __init__(self, strength: float) -> None:
        self.low, self.high = max(0.0, 1 - strength), 1 + strength

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        import torch

        orders, weights, identity = _jitter_constants(images.device)
        order = orders[(draws[:, 0] * len(orders)).long().clamp_(max=len(orders) - 1)]
        factors = self.low + draws[:, 1:] * (self.high - self.low)
        # One plane a colour: products with 3 × 3 matrices are many times as fast along the pixels as across them.
        pixels = images.flatten(1, 2).transpose(1, 2).float().contiguous()  # (B, 3, H·W)
        for change in order.T:  # (B,): brightness (0), contrast (1) or saturation (2) of each image
            factor = factors.gather(1, change[:, None])[:, :, None]
            contrast, saturation = ((change == n)[:, None, None] for n in (1, 2))
            matrix = factor * identity + (1 - factor) * saturation * weights
            added = (1 - factor) * contrast * (pixels.mean(dim=2) @ weights)[:, None, None]
            pixels = torch.baddbmm(added, matrix, pixels).clamp_(0, 255)
        return pixels.transpose(1, 2).reshape(images.shape)


@functools.cache
def _jitter_constants(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return the orders of three changes (6, 3), the gray weights (3,) and an identity matrix (3, 3) on a device.

    They are sent there once: each time the host would wait for a GPU.
    """
    import torch

    orders = torch.tensor(list(itertools.permutations(range(3))), device=device)
    return orders, torch.tensor(_GRAY, device=device), torch.eye(3, device=device)
