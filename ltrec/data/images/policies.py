"""Learnt and random augmentation policies: torchvision's own operations and tables, an image's draw of its own.

torchvision changes one image a call, and at 32 pixels most of a call is overhead. Here the images of a batch that drew
the same operation with the same magnitude go through it together: the same pixels in a tenth of the time.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from ltrec.settings import PositiveInt, Settings, conflict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from ltrec.data.images.augmentation import Step

    Operation = tuple[str, float] | None  # its name in torchvision and its magnitude; None: the image stays

Level = Annotated[int, Field(ge=0, le=255)]


class _Policy(Settings):
    fill: Level = 0
    """Gray level of the pixels that a shear, a shift or a turn brings in: 0 in torchvision, 128 in the papers' code."""


class AutoAugment(_Policy):
    """One of 25 learnt pairs of operations, each with a learnt probability and magnitude (Cubuk et al., CVPR 2019)."""

    name: Literal["auto_augment"] = "auto_augment"
    policy: Literal["cifar10", "imagenet", "svhn"]
    """The images that the pairs were learnt on."""

    def build(self) -> Step:
        from torchvision.transforms import v2

        return LearntPairs(v2.AutoAugment(v2.AutoAugmentPolicy(self.policy), fill=self.fill))


class RandAugment(_Policy):
    """Some operations in a row, any as likely as any other, all of one magnitude (Cubuk et al., NeurIPS 2020)."""

    name: Literal["rand_augment"] = "rand_augment"
    operations: PositiveInt = 2
    """N, how many in a row."""
    magnitude: Annotated[int, Field(ge=0)] = 9
    """M, the strength: 0 … `bins` − 1."""
    bins: Annotated[int, Field(ge=2, le=1000)] = 31
    """Steps from no change to the strongest."""

    @model_validator(mode="after")
    def _magnitude_is_a_bin(self) -> Self:
        if self.magnitude >= self.bins:
            raise conflict(("magnitude",), f"must be below bins ({self.bins}), got {self.magnitude}")
        return self

    def build(self) -> Step:
        from torchvision.transforms import v2

        options = {"num_magnitude_bins": self.bins, "fill": self.fill}
        return RandomOperations(v2.RandAugment(self.operations, self.magnitude, **options))


class TrivialAugment(_Policy):
    """One operation of any magnitude, of wide ranges (Müller and Hutter, ICCV 2021): nothing to tune."""

    name: Literal["trivial_augment"] = "trivial_augment"
    bins: Annotated[int, Field(ge=2, le=1000)] = 31
    """Steps from no change to the strongest."""

    def build(self) -> Step:
        from torchvision.transforms import v2

        return OneOperation(v2.TrivialAugmentWide(self.bins, fill=self.fill))


PolicySettings = Annotated[AutoAugment | RandAugment | TrivialAugment, Field(discriminator="name")]


class PolicyStep(ABC):
    """Changes each image of a batch by the operations that its random numbers choose.

    Args:
        transform: torchvision's class of the policy; its tables and operations are used, not its random numbers.
    """

    draws: int
    on_host = True

    def __init__(self, transform: Any) -> None:
        self._transform = transform
        self._magnitudes: dict[tuple[int, str], tuple[list[float] | None, bool]] = {}

    @abstractmethod
    def operations(self, draws: Sequence[float], side: int) -> list[Operation]:
        """Return the operations for an image of `side` pixels, as many for each image, given its random numbers."""

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        """Return changed images, uint8 (B, H, W, 3), given such images and draws (B, `draws`) in the host's memory."""
        side = images.shape[1]
        chosen = [self.operations(row, side) for row in draws.tolist()]
        planes, order = images.permute(0, 3, 1, 2), list(range(len(images)))
        for turn in range(len(chosen[0]) if chosen else 0):
            planes, order = self._turn(planes, order, [operations[turn] for operations in chosen])
        back = sorted(range(len(order)), key=order.__getitem__)
        return _picked(planes, back).permute(0, 2, 3, 1).contiguous()

    def _turn(self, planes: Tensor, order: list[int], chosen: list[Operation]) -> tuple[Tensor, list[int]]:
        """Apply to each image what was chosen for it; images (B, 3, H, W) and their numbers come back sorted by it."""
        places: dict[Operation, list[int]] = {}
        for place, image in enumerate(order):
            places.setdefault(chosen[image], []).append(place)
        planes = _picked(planes, [place for group in places.values() for place in group])
        start = 0
        for alike, group in places.items():
            if alike is not None:
                planes[start : start + len(group)] = self._applied(planes[start : start + len(group)], *alike)
            start += len(group)
        return planes, [order[place] for group in places.values() for place in group]

    def _applied(self, planes: Tensor, name: str, magnitude: float) -> Tensor:
        transform = self._transform
        changed: Tensor = transform._apply_image_or_video_transform(  # noqa: SLF001 - the operations have no other door
            planes,
            name,
            magnitude,
            interpolation=transform.interpolation,
            fill=transform._fill,  # noqa: SLF001
        )
        return changed

    def _operation(self, name: str, bins: int, chosen: int | None, sign: float, side: int) -> Operation:
        """Return an operation with the magnitude of a bin, in the direction that a random number says if it has two."""
        if name == "Identity":
            return None
        if (side, name) not in self._magnitudes:
            of_bins, signed = self._transform._AUGMENTATION_SPACE[name]  # noqa: SLF001
            table = of_bins(bins, side, side)
            self._magnitudes[side, name] = None if table is None else table.tolist(), signed
        table, signed = self._magnitudes[side, name]
        if table is None or chosen is None:
            return name, 0.0
        return name, -float(table[chosen]) if signed and sign <= 0.5 else float(table[chosen])


class LearntPairs(PolicyStep):
    """AutoAugment: one of the learnt pairs of operations."""

    draws = 5  # which pair, and of each of the two whether it comes and in which direction

    def operations(self, draws: Sequence[float], side: int) -> list[Operation]:
        pair = _one_of(self._transform._policies, draws[0])  # noqa: SLF001
        return [
            self._operation(name, 10, chosen, sign, side) if came <= probability else None
            for (name, probability, chosen), came, sign in zip(pair, draws[1::2], draws[2::2], strict=True)
        ]


class RandomOperations(PolicyStep):
    """RandAugment: some operations in a row."""

    def __init__(self, transform: Any) -> None:
        super().__init__(transform)
        self.draws = 2 * transform.num_ops

    def operations(self, draws: Sequence[float], side: int) -> list[Operation]:
        transform, names = self._transform, list(self._transform._AUGMENTATION_SPACE)  # noqa: SLF001
        return [
            self._operation(_one_of(names, which), transform.num_magnitude_bins, transform.magnitude, sign, side)
            for which, sign in zip(draws[::2], draws[1::2], strict=True)
        ]


class OneOperation(PolicyStep):
    """TrivialAugment: one operation of any magnitude."""

    draws = 3

    def operations(self, draws: Sequence[float], side: int) -> list[Operation]:
        bins = self._transform.num_magnitude_bins
        name = _one_of(list(self._transform._AUGMENTATION_SPACE), draws[0])  # noqa: SLF001
        return [self._operation(name, bins, _one_of(range(bins), draws[1]), draws[2], side)]


def _one_of(choices: Sequence[Any], draw: float) -> Any:
    return choices[min(math.floor(draw * len(choices)), len(choices) - 1)]  # a draw next to 1 may round up to it


def _picked(planes: Tensor, places: list[int]) -> Tensor:
    """Return the images at some places, in that order; a GPU is not waited for."""
    import torch

    from ltrec.compute.device import sent

    return planes[sent(torch.tensor(places, dtype=torch.int64), planes.device)]
