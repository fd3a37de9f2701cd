"""What is carved from train, and which classes go."""

from __future__ import annotations

from pathlib import Path

import pytest

from ltrec.data.contents import Contents
from ltrec.data.division import divide, without_untrainable
from ltrec.data.drawing import Draw, Quota
from ltrec.data.image_lists import make_list
from ltrec.data.sources.collection import Collection, Skipped
from ltrec.data.splits import SplitSettings
from ltrec.errors import UserError

ROOT = Path("data")
DRAW = Draw(0, Contents(None))
# Five, four and one images.
TRAIN = make_list([(f"{label}/{n}", label) for label, count in enumerate((5, 4, 1)) for n in range(count)])
COLLECTION = Collection(("a", "b", "c"), {"train": TRAIN})


def test_every_class_gives_the_same_number_and_small_ones_go() -> None:
    settings = SplitSettings(val=1, test=2, small_classes="drop")
    collection, quotas = divide(COLLECTION, settings, DRAW, ROOT)
    assert collection.classes == ("a", "b")
    assert quotas == {"test": Quota(0, 2, 2), "val": Quota(0, 1, 1)}
    assert {split: images.counts(2).tolist() for split, images in collection.splits.items()} == {
        "test": [2, 2], "val": [1, 1], "train": [2, 1],
    }  # fmt: skip
    assert collection.skipped == (Skipped("c/", "too few images to split (1; 4 are needed)"),)


def test_small_classes_are_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"^params\.yaml: prepare\.split: too few .* in 1 of 3 classes: 'c' \(1\)"):
        divide(COLLECTION, SplitSettings(val=1, test=2), DRAW, ROOT)


def test_classes_without_a_training_image_go() -> None:
    test = make_list([("x", 1), ("y", 0)])
    kept = without_untrainable(Collection(("a", "b", "c"), {"train": make_list([("z", 0)]), "test": test}))
    assert kept.classes == ("a",)
    assert [skip.reason for skip in kept.skipped] == ["no training image (1 in val and test)", "empty class"]
