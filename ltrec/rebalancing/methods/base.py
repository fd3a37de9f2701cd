"""What every rebalancing method is: a fit from two feature banks and the joint head to a new head."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

if TYPE_CHECKING:
    from ltrec.models.heads import Head
    from ltrec.rebalancing.feature_bank import FeatureBank

    Row = dict[str, float | int | str]

Tau = Annotated[float, Field(ge=0, le=10)]
"""The exponent of τ-normalisation; far above 1 the class of the shortest weights wins everywhere."""


@dataclass(frozen=True)
class FitResult:
    """A head, and what was chosen for it on the validation split."""

    head: Head
    chosen: dict[str, float | int | str] = field(default_factory=dict)
    curve: list[Row] = field(default_factory=list)
    """A row for each candidate, with its balanced accuracy on val."""


class Rebalancer(ABC):
    """One method. It sees features only: the backbone cannot change under it."""

    @abstractmethod
    def fit(self, train: FeatureBank, val: FeatureBank, joint: Head) -> FitResult:
        """Learn a head on `train`; choose its hyper-parameters on `val`.

        Args:
            train: Features (V, N, D) and labels of the long-tailed training split; what is trained in epochs draws its
                batches from it.
            val: The same of the balanced validation split; view 0 is used.
            joint: The classifier that the representation was learnt with, (C, D). Not changed.
        """
