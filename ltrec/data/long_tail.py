"""Cutting a training split down to a long tail: how many images each class keeps, and which."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from ltrec.data.drawing import draw_key
from ltrec.errors import UserError
from ltrec.settings import PositiveInt, Settings

if TYPE_CHECKING:
    from typing import Self

    from numpy.typing import NDArray

    from ltrec.data.drawing import Draw
    from ltrec.data.image_lists import ImageList

    Counts = NDArray[np.int64]
    Order = Literal["label", "size", "random"]

_WHERE = "params.yaml: prepare.long_tail"


class _Profile(Settings):
    """How class sizes fall from head to tail; C classes at positions j = 0 … C - 1."""

    imbalance_factor: Annotated[float, Field(ge=1)]
    """The imbalance factor IF: the size of the largest class over that of the smallest."""
    n_max: PositiveInt | None = None
    """Images of the largest class; null: as many as the classes can supply."""
    order: Literal["label", "size", "random"] = "label"
    """Which classes are head and which are tail: by label, from the largest to the smallest, or drawn by seed."""

    @model_validator(mode="after")
    def _tail_remains(self) -> Self:
        if self.n_max is not None and self.n_max < self.imbalance_factor:
            raise ValueError(
                f"n_max ({self.n_max}) is below imbalance_factor ({self.imbalance_factor:g}):"
                " the rarest class would keep no image"
            )
        return self

    def sizes(self, n_max: int, classes: int) -> Counts:
        """Return how many images each position keeps, (C,), from head to tail, for C ≥ 2."""
        raise NotImplementedError


class Exponential(_Profile):
    """n_j = ⌊n_max · IF^(−j/(C−1))⌋, the profile of CIFAR-LT (Cui et al. 2019)."""

    profile: Literal["exponential"]

    def sizes(self, n_max: int, classes: int) -> Counts:
        return _floor(n_max * self.imbalance_factor ** (-np.arange(classes) / (classes - 1)))


class Pareto(_Profile):
    """Quantiles of a Pareto distribution between n_max and n_max / IF, the profile of ImageNet-LT (Liu et al. 2019).

    The sizes of ImageNet-LT and Places-LT are random draws from a Pareto distribution, shifted and scaled to span
    n_max … n_min. Here the quantiles take the place of the draws: with q_j = ((j + 1) / C)^(−1/α), which falls
    from C^(1/α) to 1, n_j = ⌊n_min + (n_max − n_min) · (q_j − 1) / (q_0 − 1)⌋. For ImageNet-LT's figures (α = 6,
    C = 1000, 1280 … 5) that gives 121,449 images; the draw that was published has 115,846.
    """

    profile: Literal["pareto"]
    alpha: Annotated[float, Field(ge=0.1, le=100)] = 6.0
    """The shape of the distribution: the smaller, the shorter the head; 6 for ImageNet-LT."""

    def sizes(self, n_max: int, classes: int) -> Counts:
        quantiles = (np.arange(1, classes + 1) / classes) ** (-1 / self.alpha)
        n_min = n_max / self.imbalance_factor
        return _floor(n_min + (n_max - n_min) * (quantiles - 1) / (quantiles[0] - 1))


class Step(_Profile):
    """n_max images for the first classes, ⌊n_max / IF⌋ for the others (Buda et al. 2018)."""

    profile: Literal["step"]
    head: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """The fraction of the classes that keep n_max images; at least one class stands on either side."""

    def sizes(self, n_max: int, classes: int) -> Counts:
        head = min(max(round(self.head * classes), 1), classes - 1)
        return np.where(np.arange(classes) < head, n_max, _floor(n_max / self.imbalance_factor))


LongTailSettings = Annotated[Exponential | Pareto | Step, Field(discriminator="profile")]


def cut(train: ImageList, classes: int, profile: _Profile, draw: Draw) -> tuple[ImageList, Counts]:
    """Return the images that a profile keeps of each class, drawn by content, and how many it asked of each, (C,).

    A class that has fewer keeps what it has.

    Raises:
        UserError: no n_max is given, and the classes cannot supply the imbalance factor.
    """
    available = train.counts(classes)
    order = _class_order(available, profile.order, draw.seed)
    n_max = profile.n_max or _largest_n_max(available[order], profile)
    asked = np.empty(classes, dtype=np.int64)
    asked[order] = profile.sizes(n_max, classes)
    return train.where(draw.ranks(train) < asked[train.labels]), asked


def _class_order(available: Counts, order: Order, seed: int) -> NDArray[np.int64]:
    """Return the labels from head to tail, (C,)."""
    if order == "size":
        return np.argsort(-available, kind="stable")
    if order == "random":
        return np.array(sorted(range(len(available)), key=lambda label: draw_key(seed, str(label))))
    return np.arange(len(available))


def _largest_n_max(available: Counts, profile: _Profile) -> int:
    """Return the largest n_max that asks no class for more than it has, by bisection: sizes grow with n_max."""

    def fits(n_max: int) -> bool:
        return bool((profile.sizes(n_max, len(available)) <= available).all())

    low, high = int(np.ceil(profile.imbalance_factor)), int(available.max()) + 1
    if low >= high or not fits(low):
        raise UserError(
            f"the classes cannot supply an imbalance factor of {profile.imbalance_factor:g}: the largest has"
            f" {available.max()} training images and would need {low} or more; lower imbalance_factor, set n_max"
            " to accept smaller classes, or order: size",
            where=_WHERE,
        )
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _floor(sizes: NDArray[np.float64] | float) -> Counts:
    # 49 · 49⁻¹ is 0.999… in floating point, but one image.
    return np.floor(np.asarray(sizes) + 1e-9).astype(np.int64)
