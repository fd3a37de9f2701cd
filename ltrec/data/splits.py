"""How many images of each class val and test take from train, where the data has no split of its own."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Discriminator, Field, SerializeAsAny, Tag, model_validator

from ltrec.data.drawing import Quota
from ltrec.data.grouping import GroupSettings
from ltrec.settings import PositiveInt, Settings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

    from ltrec.artifacts import Split


def _whole_or_fraction(amount: float) -> float:
    if amount < 1:
        return amount
    if amount != int(amount):
        raise ValueError("must be a whole number of images a class, or a fraction below 1")
    return int(amount)


# SerializeAsAny: a whole number where the schema says float would make the serializer of a union warn.
Amount = Annotated[SerializeAsAny[float], Field(gt=0), AfterValidator(_whole_or_fraction)]


class Share(Settings):
    """A share of each class's images, whatever comes to them: between the bounds, more images move none of the others.

    An image is in the share by a hash of seed and content. Bounds are kept as nearly as groups allow.
    """

    share: Annotated[float, Field(gt=0, lt=1)]
    """The expected share of a class's images."""
    least: PositiveInt = 1
    """Images of a class with a smaller share."""
    most: PositiveInt | None = None
    """Images of a class with a larger share; null: no bound."""

    @model_validator(mode="after")
    def _bounds_are_in_order(self) -> Self:
        if self.most is not None and self.most < self.least:
            raise ValueError(f"most ({self.most}) must not be below least ({self.least})")
        return self


def _kind(value: object) -> str:
    return "Share" if isinstance(value, dict | Share) else "number"


Taken = Annotated[Annotated[Share, Tag("Share")] | Annotated[Amount, Tag("number")], Discriminator(_kind)]
TakenOrTest = Annotated[
    Annotated[Share, Tag("Share")] | Annotated[Amount | Literal["test"], Tag("number")], Discriminator(_kind)
]


class SplitSettings(Settings):
    """What is carved from train where the data has no split of its own."""

    val: TakenOrTest = 0.1
    """Validation images of each class; below 1: that fraction of the smallest class, but at least one image, the same
    number of every class; {share, least, most}: a share of each class. test: val lists the test images, as in the
    literature on data without a val; whatever is chosen is then chosen on test."""
    test: Taken = 0.2
    """Test images of each class: a number, a fraction or a share, as for `val`."""
    small_classes: Literal["error", "drop", "keep"] | None = None
    """What to do about classes with too few images: stop, leave them out and list them in stats.json, or keep all their
    images in train, so that they are learnt but not tested; null: keep where val or test is a share, else stop."""

    group: GroupSettings | None = None
    """Images that belong together and must not lie in two splits, such as a burst or a patient's; a text is a regular
    expression on their paths; null: each image for itself, but for exact copies."""

    @model_validator(mode="after")
    def _train_remains(self) -> Self:
        val, test = (_part(amount) for amount in (self.val, self.test))
        if val and test and val + test >= 1:
            raise ValueError(f"val ({val}) and test ({test}) together must leave something for train")
        return self

    @property
    def carved(self) -> tuple[Split, ...]:
        """Return the splits that are carved from train where the data does not have them."""
        return ("test",) if self.val == "test" else ("val", "test")

    @property
    def of_small_classes(self) -> Literal["error", "drop", "keep"]:
        """Return what to do about classes with too few images."""
        shared = isinstance(self.val, Share) or isinstance(self.test, Share)
        return self.small_classes or ("keep" if shared else "error")

    def quotas(self, smallest: int, missing: Sequence[Split]) -> dict[Split, Quota]:
        """Return what each class gives to each missing split, if the smallest class has `smallest` images."""
        # test comes first, so that another val leaves the test images as they are.
        amounts: dict[Split, Share | float] = {"test": self.test}
        if self.val != "test":
            amounts["val"] = self.val
        return {split: _quota(amount, smallest) for split, amount in amounts.items() if split in missing}

    def suffices(self, count: int, missing: Sequence[Split]) -> bool:
        """Return whether a class of `count` images can give the least that it must and keep one for train."""
        return sum(quota.least for quota in self.quotas(count, missing).values()) < count

    def needed(self, missing: Sequence[Split]) -> int:
        """Return the size of the smallest class that can be split."""
        return next(count for count in itertools.count(1) if self.suffices(count, missing))


def _part(amount: Share | float | str) -> float:
    """Return the part of a class that an amount is; 0 where it is a number of images."""
    if isinstance(amount, Share):
        return amount.share
    return amount if isinstance(amount, float) and amount < 1 else 0


def _quota(amount: Share | float, smallest: int) -> Quota:
    if isinstance(amount, Share):
        return Quota(amount.share, amount.least, amount.most)
    number = int(amount) if amount >= 1 else max(1, math.floor(amount * smallest + 1e-9))
    return Quota(0, number, number)
