"""Splits: balanced, disjoint, repeatable, and steady when the data grows."""

from __future__ import annotations

import hashlib
import itertools
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from ltrec.artifacts import SPLITS
from ltrec.data.image_lists import ImageList, make_list
from ltrec.data.splits import SplitSettings, carve, draw_ranks

BOTH = ["val", "test"]


def images(*counts: int) -> ImageList:
    return make_list([(f"{label}/{n}.png", label) for label, count in enumerate(counts) for n in range(count)])


def test_every_class_gives_the_same_number_and_no_image_twice() -> None:
    whole = images(30, 7, 12)
    splits = carve(whole, {"test": 3, "val": 2}, seed=0)
    assert splits["test"].counts(3).tolist() == [3, 3, 3]
    assert splits["val"].counts(3).tolist() == [2, 2, 2]
    assert splits["train"].counts(3).tolist() == [25, 2, 7]
    everything = list(itertools.chain.from_iterable(splits[split].paths for split in SPLITS))
    assert sorted(everything) == sorted(whole.paths)


def test_the_seed_decides_and_the_order_of_files_does_not() -> None:
    whole = images(30, 12)
    reverse = ImageList(whole.paths[::-1], whole.labels[::-1])
    first, again, other = (
        set(carve(source, {"test": 5}, seed)["test"].paths) for source, seed in ((whole, 0), (reverse, 0), (whole, 1))
    )
    assert first == again
    assert first != other


def test_the_draw_is_pinned() -> None:
    # Hashes of seed and path: the same on every machine and with every version of NumPy.
    assert carve(images(8), {"test": 2}, seed=0)["test"].paths == ("0/5.png", "0/7.png")


def test_test_images_stay_when_val_or_the_data_grows() -> None:
    before = carve(images(40, 40), {"test": 5, "val": 2}, seed=3)["test"].paths
    assert carve(images(40, 40), {"test": 5, "val": 9}, seed=3)["test"].paths == before
    with_more = carve(images(41, 40, 40), {"test": 5, "val": 2}, seed=3)["test"].paths
    assert len(set(before) - set(with_more)) <= 1


def test_amounts_are_images_or_fractions_of_the_smallest_class() -> None:
    assert SplitSettings(val=10, test=40).per_class(60, BOTH) == {"test": 40, "val": 10}
    assert SplitSettings(val=0.1, test=0.29).per_class(100, BOTH) == {"test": 29, "val": 10}
    assert SplitSettings(val=0.1, test=0.2).per_class(5, BOTH) == {"test": 1, "val": 1}
    assert SplitSettings(val=0.1, test=3).per_class(40, ["val"]) == {"val": 4}
    assert SplitSettings(val=0.1, test=3).per_class(40, []) == {}


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
    ],
)
def test_amounts_that_make_no_sense(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message) as caught:
        SplitSettings.model_validate(given)
    assert len({error["loc"][:1] for error in caught.value.errors()}) == 1


def test_ranks_follow_the_keyed_hash_of_each_path() -> None:
    whole = images(20, 7)

    def key(path: str) -> bytes:
        return hashlib.blake2b(path.encode(), digest_size=8, key=b"5").digest()

    for label in (0, 1):
        own = np.flatnonzero(whole.labels == label)
        drawn = sorted((whole.paths[index] for index in own), key=key)
        assert draw_ranks(whole, 5)[own].tolist() == [drawn.index(whole.paths[index]) for index in own]


def test_ranks_do_not_follow_the_names() -> None:
    taken = carve(images(1000), {"test": 500}, seed=0)["test"]
    numbers = np.array([int(path[2:-4]) for path in taken.paths])
    # Of 500 drawn at random from 1000, 250 ± 11 (hypergeometric) have a number below 500.
    assert 200 < (numbers < 500).sum() < 300
