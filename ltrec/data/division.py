"""Dividing what a source has into train, val and test: what it lacks is carved from train, and small classes go."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ltrec import console
from ltrec.data.splits import carve
from ltrec.errors import UserError, some

if TYPE_CHECKING:
    from pathlib import Path

    from ltrec.artifacts import Split
    from ltrec.data.image_lists import ImageList
    from ltrec.data.sources.collection import Collection
    from ltrec.data.splits import SplitSettings


def without_untrainable(collection: Collection) -> Collection:
    """Return the collection without the classes that have no training image: they cannot be learnt."""
    counts = {split: images.counts(len(collection.classes)) for split, images in collection.splits.items()}
    total = np.sum(list(counts.values()), axis=0)
    return collection.drop(
        {
            label: f"no training image ({total[label]} in val and test)" if total[label] else "empty class"
            for label in np.flatnonzero(counts["train"] == 0).tolist()
        }
    )


def divide(
    collection: Collection, settings: SplitSettings, seed: int, root: Path
) -> tuple[Collection, dict[Split, ImageList], dict[Split, int]]:
    """Carve the splits that the source lacks from train.

    Returns:
        The classes that stay, the splits, and how many images of each class each carved split took.

    Raises:
        UserError: Classes are too small to be divided, or fewer than two are left, or a given split is empty.
    """
    missing: list[Split] = [split for split in settings.carved if split not in collection.splits]
    collection = _without_small(collection, settings, missing)
    if len(collection.classes) < 2:
        raise UserError(
            f"{len(collection.classes)} class(es) with enough images; a classifier needs two{_skipped(collection)}",
            where=str(root),
        )
    for split, images in collection.splits.items():
        # Carving in its place would give another split than the one asked for.
        if not len(images):
            raise UserError(f"of the given {split} split no image is left{_skipped(collection)}", where=str(root))
    train = collection.splits["train"]
    per_class = settings.per_class(int(train.counts(len(collection.classes)).min()), missing)
    if missing:
        absent = " and no ".join(per_class)
        shares = " and ".join(f"{number:,} for {split}" for split, number in per_class.items())
        console.say(f"prepare: the data has no {absent} split: each class of train gives {shares}")
    splits = dict(collection.splits) | carve(train, per_class, seed)
    if settings.val == "test":
        _warn_selected_on_test(unused=len(splits.get("val", ())))
        splits["val"] = splits["test"]
    return collection, splits, per_class


def _without_small(collection: Collection, settings: SplitSettings, missing: list[Split]) -> Collection:
    counts = collection.splits["train"].counts(len(collection.classes)).tolist()
    needed = settings.needed(missing)
    small = {label: count for label, count in enumerate(counts) if not settings.suffices(count, missing)}
    if small and settings.small_classes == "error":
        named = some([f"'{collection.classes[label]}' ({count})" for label, count in small.items()])
        raise UserError(
            f"too few images to split in {len(small)} of {len(counts)} classes: {named}; a class needs {needed}"
            f" ({', '.join(f'{split} {getattr(settings, split)}' for split in missing)}, 1 or more for train):"
            f" ask for less, add images, or set small_classes: drop{_skipped(collection)}",
            where="params.yaml: prepare.split",
        )
    return collection.drop(
        {label: f"too few images to split ({count}; {needed} are needed)" for label, count in small.items()}
    )


def _skipped(collection: Collection) -> str:
    """Return what was skipped, as a message's end: it may be why too little is left."""
    classes = [f"{skip.path} {skip.reason}" for skip in collection.skipped if skip.path.endswith("/")]
    files = [f"{skip.path} {skip.reason}" for skip in collection.skipped if not skip.path.endswith("/")]
    return "".join(
        f"; {len(skips):,} {what} skipped: {some(skips)}"
        for skips, what in ((classes, "class(es)"), (files, "file(s)"))
        if skips
    )


def _warn_selected_on_test(unused: int) -> None:
    beside = f"; the {unused:,} val images of the data go unused" if unused else ""
    console.warn(
        "prepare: val lists the test images (params.yaml: prepare.split.val: test): epoch, hyper-parameters and"
        f" champion will be chosen on test, as in much of the literature, which flatters the figures{beside}"
    )
