"""Dividing what a source has into train, val and test: what it lacks is carved from train; small classes go or stay."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ltrec import console
from ltrec.data.drawing import carve
from ltrec.data.splits import Share
from ltrec.errors import UserError, some

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from ltrec.artifacts import Split
    from ltrec.data.drawing import Draw, Keys, Quota
    from ltrec.data.sources.collection import Collection
    from ltrec.data.splits import SplitSettings

_WHERE = "params.yaml: prepare.split"


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
    collection: Collection, settings: SplitSettings, draw: Draw, root: Path
) -> tuple[Collection, dict[Split, Quota]]:
    """Carve the splits that the source lacks from train.

    Returns:
        The collection with all splits and the classes that stay, and what each class gave to each carved split.

    Raises:
        UserError: Classes are too small to be divided, or fewer than two are left, or a given split is empty.
    """
    missing: list[Split] = [split for split in settings.carved if split not in collection.splits]
    keys = draw.of_units(collection.splits["train"]) if missing else None
    small = {} if keys is None else _small(collection, settings, missing, keys)
    if small and settings.of_small_classes != "keep":
        collection, small, keys = _without(collection, small, settings, missing), {}, None
    classes = len(collection.classes)
    if classes < 2:
        raise UserError(
            f"{classes} class(es) with enough images; a classifier needs two{_skipped(collection)}", where=str(root)
        )
    for split, images in collection.splits.items():
        # Carving in its place would give another split than the one asked for.
        if not len(images):
            raise UserError(f"of the given {split} split no image is left{_skipped(collection)}", where=str(root))
    quotas: dict[Split, Quota] = {}
    if missing:
        train = collection.splits["train"]
        large = [count for label, count in enumerate(train.counts(classes).tolist()) if label not in small]
        if not large:
            raise UserError(_too_small(collection, small, settings, missing), where=_WHERE)
        quotas = settings.quotas(min(large), missing)
        absent = " and no ".join(quotas)
        shares = " and ".join(f"{quota} for {split}" for split, quota in quotas.items())
        console.say(f"prepare: the data has no {absent} split: each class of train gives {shares}")
        carved = carve(train, draw.of_units(train) if keys is None else keys, quotas, whole=small)
        # A class of which all images belong to those of rarer classes may have none left.
        collection = without_untrainable(replace(collection, splits={**collection.splits, **carved}))
    if settings.val == "test":
        _warn_selected_on_test(unused=len(collection.splits.get("val", ())))
        collection = replace(collection, splits={**collection.splits, "val": collection.splits["test"]})
    return collection, quotas


def _small(collection: Collection, settings: SplitSettings, missing: Sequence[Split], keys: Keys) -> dict[int, str]:
    """Return the classes that cannot be divided, by label, and what each has; `keys` are those of train's units."""
    train = collection.splits["train"]
    counts = train.counts(len(collection.classes)).tolist()
    small = {label: f"{count:,}" for label, count in enumerate(counts) if not settings.suffices(count, missing)}
    units, unit_of = np.unique(keys, return_inverse=True)
    units_shown = np.bincount(np.unique(train.labels * len(units) + unit_of) // len(units)).tolist()
    for label, (count, number) in enumerate(zip(counts, units_shown, strict=True)):
        if number < count and number <= len(missing):
            small[label] = f"{count:,} that belong together as {number:,}"
    return small


def _without(
    collection: Collection, small: Mapping[int, str], settings: SplitSettings, missing: Sequence[Split]
) -> Collection:
    """Return the collection without its small classes.

    Raises:
        UserError: they are not to be dropped.
    """
    if settings.of_small_classes == "error":
        raise UserError(_too_small(collection, small, settings, missing), where=_WHERE)
    needed = settings.needed(missing)
    return collection.drop(
        {label: f"too few images to split ({has}; {needed} are needed)" for label, has in small.items()}
    )


def _too_small(
    collection: Collection, small: Mapping[int, str], settings: SplitSettings, missing: Sequence[Split]
) -> str:
    named = some([f"'{collection.classes[label]}' ({has})" for label, has in small.items()])
    asked = ", ".join(f"{split} {_amount(getattr(settings, split))}" for split in missing)
    return (
        f"too few images to split in {len(small)} of {len(collection.classes)} classes: {named}; a class needs"
        f" {settings.needed(missing)} ({asked}, 1 or more for train):"
        f" ask for less, add images, or set small_classes: keep or drop{_skipped(collection)}"
    )


def _amount(amount: Share | float) -> str:
    return f"{amount.least} or more" if isinstance(amount, Share) else str(amount)


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
