"""What every rebalancing method is: a fit from two feature banks and the joint head to a new head."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from ltrec.rebalancing.adjusting import Adjustable
from ltrec.rebalancing.complexity import Complexity
from ltrec.rebalancing.head_training import HeadRecipe

if TYPE_CHECKING:
    from ltrec.models.heads import Head
    from ltrec.rebalancing.feature_bank import FeatureBank

Row = dict[str, float | int | str]
Tau = Annotated[float, Field(ge=0, le=10)]
"""The exponent of τ-normalisation; far above 1 the class of the shortest weights wins everywhere."""


@dataclass(frozen=True)
class FitResult:
    """A head, and what was chosen for it on the validation split. Its temperature comes later, from `calibrate`."""

    head: Head
    chosen: Row = field(default_factory=dict)
    curve: list[Row] = field(default_factory=list)
    """A row for each candidate, with its balanced accuracy on val."""


class HeadTrainingSettings(Adjustable, HeadRecipe):
    """How a rebalancing method trains a head."""

    complexity: ClassVar = Complexity.TRAINED

    images: bool = False
    """Compute features anew in each epoch, of augmented images, as the paper did; false: take the feature bank's."""


class Rebalancer(ABC):
    """A rebalancing method; it sees features only, so that the backbone cannot change."""

    @abstractmethod
    def fit(self, train: FeatureBank, val: FeatureBank, joint: Head) -> FitResult:
        """Return a head that is learnt on `train`, with hyper-parameters chosen on `val`.

        Args:
            train: Features (V, N, D) and labels (N,) of the long-tailed training split, from which epochs draw.
            val: The same of the balanced validation split; only view 0 is used.
            joint: The head that the representation was learnt with, from D features to C logits; it stays as it is.
        """
