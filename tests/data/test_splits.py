"""How many images of each class val and test ask for."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from ltrec.data.drawing import Quota
from ltrec.data.splits import Share, SplitSettings

BOTH = ["val", "test"]


def test_amounts_are_images_or_fractions_of_the_smallest_class() -> None:
    assert numbers(60, BOTH, val=10, test=40) == {"test": 40, "val": 10}
    assert numbers(100, BOTH, val=0.1, test=0.29) == {"test": 29, "val": 10}
    assert numbers(5, BOTH, val=0.1, test=0.2) == {"test": 1, "val": 1}
    assert numbers(40, ["val"], val=0.1, test=3) == {"val": 4}
    assert numbers(40, [], val=0.1, test=3) == {}


def numbers(smallest: int, missing: list[Any], **given: Any) -> dict[str, int]:
    quotas = SplitSettings(**given).quotas(smallest, missing)
    assert all(quota.share == 0 and quota.least == quota.most for quota in quotas.values())
    return {split: quota.least for split, quota in quotas.items()}


def test_a_share_has_bounds() -> None:
    settings = SplitSettings.model_validate({"val": {"share": 0.1}, "test": {"share": 0.2, "least": 5, "most": 50}})
    assert settings.quotas(3, BOTH) == {"test": Quota(0.2, 5, 50), "val": Quota(0.1, 1, None)}
    assert settings.needed(BOTH) == 7
    assert [str(quota) for quota in settings.quotas(3, BOTH).values()] == [
        "a share of 0.2 (5 to 50)", "a share of 0.1 (1 or more)",
    ]  # fmt: skip


def test_small_classes_stay_where_shares_are_asked_for_and_stop_where_numbers_are() -> None:
    share = Share(share=0.2)
    assert SplitSettings().of_small_classes == SplitSettings(val="test").of_small_classes == "error"
    assert SplitSettings(val=share).of_small_classes == SplitSettings(val="test", test=share).of_small_classes == "keep"
    assert SplitSettings(test=share, small_classes="drop").of_small_classes == "drop"
    assert SplitSettings(small_classes="keep").of_small_classes == "keep"


@pytest.mark.parametrize(
    ("val", "test", "missing", "needed"),
    # The last: ⌊0.9 n⌋ + 1 < n first holds for n = 11, where 9 + 1 leave one.
    [(10, 40, BOTH, 51), (10, 40, ["val"], 11), (0.1, 0.2, BOTH, 3), (1, 40, [], 1), (0.01, 0.9, BOTH, 11)],
)
def test_the_smallest_class_that_can_be_split(val: float, test: float, missing: list[Any], needed: int) -> None:
    settings = SplitSettings(val=val, test=test)
    assert settings.needed(missing) == needed
    assert [settings.suffices(count, missing) for count in (needed - 1, needed)] == [False, True]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"val": 0}, "greater than 0"),
        ({"val": -1}, "greater than 0"),
        ({"val": 2.5}, "whole number of images a class, or a fraction below 1"),
        ({"val": 0.5, "test": 0.5}, "must leave something for train"),
        ({"val": "10"}, "valid number"),
        ({"val": True}, "valid number"),
        ({"test": float("nan")}, "finite number"),
        ({"val": {"share": 0.5}, "test": {"share": 0.5}}, "must leave something for train"),
        ({"val": {"share": 0.8}, "test": 0.2}, "must leave something for train"),
        ({"test": {"share": 1.0}}, "less than 1"),
        ({"test": {"share": 0.2, "least": 0}}, "greater than 0"),
        ({"test": {"share": 0.2, "least": 5, "most": 4}}, r"most \(4\) must not be below least \(5\)"),
        ({"test": {"least": 5}}, "Field required"),
    ],
)
def test_amounts_that_make_no_sense(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message) as caught:
        SplitSettings.model_validate(given)
    assert len({error["loc"][:1] for error in caught.value.errors()}) == 1
