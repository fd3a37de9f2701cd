"""Leaving doubtful images to a human: the confidence below which no answer is given. N images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Self

import numpy as np
from pydantic import Field, model_validator

from ltrec.errors import UserError
from ltrec.settings import Settings, conflict

if TYPE_CHECKING:
    from numpy.typing import NDArray

Share = Annotated[float, Field(gt=0, lt=1)]


@dataclass(frozen=True)
class Abstention:
    """A threshold, and what it does to the images that it was chosen on.

    Attributes:
        below: No answer is given where the largest probability is smaller.
        coverage: The share of the images that are answered.
        error: The share of the answers that are wrong.
    """

    below: float
    coverage: float
    error: float


class AbstainSettings(Settings):
    """How many images are left unanswered: by the share of answers wanted, or by the share of wrong ones allowed."""

    coverage: Share | None = None
    """The share of val's images that are answered at least; the surest are."""
    error: Share | None = None
    """The share of wrong answers on val at most; as many images as that allows are answered."""

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.coverage is None) == (self.error is None):
            raise conflict((), "give either coverage or error, such as {coverage: 0.9}")
        return self

    def choose(
        self, confidences: NDArray[np.float32], right: NDArray[np.bool_], weights: NDArray[np.float64]
    ) -> Abstention:
        """Return the threshold that these settings ask for (Geifman & El-Yaniv 2017, without their bound).

        It lies halfway between two confidences that occur, so that rounding moves no image across.

        Args:
            confidences: The largest probability of each image, (N,).
            right: Whether the class of that probability is the image's, (N,).
            weights: How much each image counts, positive, (N,).

        Raises:
            UserError: The error that is allowed is exceeded by the surest images already.
        """
        order = np.argsort(-confidences, kind="stable")
        sorted_confidences, answered = confidences[order].astype(np.float64), np.cumsum(weights[order])
        coverages = answered / answered[-1]
        errors = np.cumsum(np.where(right[order], 0.0, weights[order])) / answered
        # Images that are equally sure are answered together or not at all.
        ends = np.flatnonzero(np.diff(sorted_confidences, append=-1.0))
        if self.coverage is not None:
            # Sums of weights round.
            end = ends[np.searchsorted(coverages[ends], self.coverage - 1e-9)]
        else:
            assert self.error is not None, "one of both is given"
            low = ends[errors[ends] <= self.error]
            if not len(low):
                best = ends[np.argmin(errors[ends])]
                raise UserError(
                    f"error {self.error:g} is not reached on val, whatever is left unanswered: at best it is"
                    f" {errors[best]:.3g}, with {coverages[best]:.1%} of the images answered"
                )
            end = low[-1]
        next_lower = sorted_confidences[end + 1] if end + 1 < len(order) else None
        below = 0.0 if next_lower is None else (sorted_confidences[end] + next_lower) / 2
        return Abstention(float(below), float(coverages[end]), float(errors[end]))
