"""Shot groups: a class is many-, medium- or few-shot by its number of training images (Liu et al. 2019)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from pydantic import model_validator

from ltrec.settings import PositiveInt, Settings

if TYPE_CHECKING:
    from typing import Self

    from numpy.typing import NDArray

Group = Literal["many", "medium", "few"]
GROUPS: tuple[Group, ...] = get_args(Group)


class ShotSettings(Settings):
    """Where many-shot ends and few-shot begins, in training images of a class."""

    many_above: PositiveInt = 100
    """A class with more training images than this is many-shot."""
    few_below: PositiveInt = 20
    """A class with fewer training images than this is few-shot; what lies between is medium-shot."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.few_below > self.many_above:
            raise ValueError(f"few_below ({self.few_below}) must not exceed many_above ({self.many_above})")
        return self


def shot_groups(counts: NDArray[np.int64], many_above: int, few_below: int) -> NDArray[np.str_]:
    """Return each class's shot group by its number of training images, (C,) → (C,)."""
    return np.select([counts > many_above, counts < few_below], ["many", "few"], "medium")
