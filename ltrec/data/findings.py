"""What the user is told of the data before anything is learnt from it: counts by class, and what is wrong with it."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from ltrec import console
from ltrec.artifacts import SPLITS
from ltrec.data.shot_groups import shot_groups
from ltrec.data.sources.scanning import is_text
from ltrec.errors import UserError, some

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from ltrec.artifacts import Split
    from ltrec.data.contents import Contents
    from ltrec.data.drawing import Quota
    from ltrec.data.image_lists import ImageList
    from ltrec.data.shot_groups import ShotSettings
    from ltrec.data.sources.collection import Collection, Skipped

    Splits = Mapping[Split, ImageList]

_ENOUGH_TO_CHOOSE_ON = 5


def class_statistics(splits: Splits, collection: Collection, shots: ShotSettings) -> dict[str, Any]:
    """Return each class's images by split and its shot group, the totals and the imbalance factor, as JSON."""
    counts = {split: splits[split].counts(len(collection.classes)) for split in SPLITS}
    groups = shot_groups(counts["train"], shots.many_above, shots.few_below)
    supercategories = collection.supercategories
    return {
        "classes": [
            {
                "name": name,
                **({"supercategory": supercategories[label]} if supercategories else {}),
                **{split: int(counts[split][label]) for split in SPLITS},
                "shot": str(groups[label]),
            }
            for label, name in enumerate(collection.shown)
        ],
        "images": {split: int(counts[split].sum()) for split in SPLITS},
        "not_tested": [collection.shown[label] for label in np.flatnonzero(counts["test"] == 0).tolist()],
        "imbalance_factor": float(counts["train"].max() / counts["train"].min()),
    }


def require_listable_names(collection: Collection, root: Path) -> None:
    """Refuse names that a list of classes, one a line, cannot hold.

    Raises:
        UserError: A name is no text in one line, or two classes have the same.
    """
    unfit = [
        name
        for name in (*collection.shown, *filter(None, collection.supercategories))
        if not name.strip() or not is_text(name) or re.search(r"[\r\n]", name)
    ]
    if unfit:
        raise UserError(
            f"a class name must be UTF-8 text in one line, got {some([f'{name!a}' for name in unfit])}", where=str(root)
        )
    twice = [f"'{name}'" for name, times in Counter(collection.shown).items() if times > 1]
    if twice:
        raise UserError(f"classes must have different names; more than one is called {some(twice)}", where=str(root))


def warn_skipped(collection: Collection, stats: Path) -> None:
    """Say what was skipped, of each kind of files that is not read in a line of its own; `stats` lists it all."""
    others = [skip for skip in collection.skipped if not skip.of_kind]
    if others:
        listed = some([f"{skip.path} ({skip.reason})" for skip in others])
        console.warn(f"prepare: skipped {len(others)}: {listed}; all are listed in {stats}")
    for reason, paths in _kinds(collection.skipped).items():
        console.warn(
            f"prepare: skipped {len(paths):,} ({some(paths)}): {reason}; then `dvc repro --force prepare`;"
            f" all are listed in {stats}"
        )


def why_unreadable(skipped: Sequence[Skipped]) -> str:
    """Return why none of some files can be read: each kind of files once, then the first others."""
    kinds = [f"{len(paths):,} {reason}" for reason, paths in _kinds(skipped).items()]
    others = some([f"{skip.path}: {skip.reason}" for skip in skipped if not skip.of_kind])
    return "; ".join([*kinds, *([others] if others else [])])


def _kinds(skipped: Sequence[Skipped]) -> dict[str, list[str]]:
    """Return the paths of the files of each kind that is not read, by the kind and its remedy."""
    kinds: dict[str, list[str]] = {}
    for skip in skipped:
        if skip.of_kind:
            kinds.setdefault(skip.reason, []).append(skip.path)
    return kinds


def warn_truncated(truncated: Sequence[str], stats: Path) -> None:
    """Say which images are used although their end is missing."""
    if truncated:
        console.warn(
            f"prepare: {len(truncated):,} truncated image(s) are kept as far as they go (prepare.truncated: keep):"
            f" {some(truncated)}; all are listed in {stats}"
        )


def warn_untested(splits: Splits, classes: Sequence[str]) -> None:
    """Say which classes have no image in a split: a line for each set of classes that some splits lack."""
    lacking: dict[tuple[int, ...], list[str]] = {}
    for split, images in splits.items():
        absent = np.flatnonzero(images.counts(len(classes)) == 0).tolist()
        if absent:
            lacking.setdefault(tuple(absent), []).append(split)
    for labels, of_splits in lacking.items():
        named = some([f"'{classes[label]}'" for label in labels])
        less = " and ".join(
            {"val": "balanced accuracy on val is over the others", "test": "they are not tested"}[split]
            for split in of_splits
        )
        console.warn(
            f"prepare: {len(labels)} of {len(classes)} classes have no {' and no '.join(of_splits)} image: {named};"
            f" {less}"
        )


def warn_thin(val: ImageList, classes: int) -> None:
    """Say what it means for all that is chosen on val where classes have fewer than five images there."""
    counts = val.counts(classes)
    thin = counts[(counts > 0) & (counts < _ENOUGH_TO_CHOOSE_ON)]
    if len(thin):
        points = 100 / int(thin.min())
        console.warn(
            f"prepare: val has fewer than {_ENOUGH_TO_CHOOSE_ON} images in {len(thin)} of {classes} classes: one image"
            f" of val moves such a class's accuracy by up to {points:.0f} points, and epoch, hyper-parameters and"
            " champion, which are chosen on val, may be luck (params.yaml: prepare.split.val)"
        )


def warn_short(
    train: ImageList, classes: Sequence[str], asked: NDArray[np.int64], carved: Mapping[Split, Quota]
) -> None:
    """Say which classes have fewer training images than a long tail asks of them, (C,), and what was carved before."""
    has = train.counts(len(classes))
    short = [f"'{classes[label]}' ({has[label]} of {asked[label]})" for label in np.flatnonzero(has < asked).tolist()]
    if short:
        gone = "".join(f"; {split} took {quota} of each class before" for split, quota in carved.items())
        console.warn(
            f"prepare: {len(short)} of {len(classes)} classes have fewer training images than"
            f" prepare.long_tail asks, and keep what they have: {some(short)}{gone}"
        )


def count_leaks(splits: Splits, contents: Contents) -> int:
    """Return how many contents lie in more than one split; it is said, since they make test figures too good."""
    leaks = contents.leaks(splits)
    if leaks:
        how = "byte for byte " if contents.digests is not None else ""
        console.warn(
            f"prepare: {len(leaks)} image(s) lie {how}in more than one split, which flatters the figures: {some(leaks)}"
        )
    return len(leaks)
