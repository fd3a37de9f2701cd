"""Find the images, decode every file once, split by seed, cut the long tail, write the lists."""

from __future__ import annotations

import contextlib
import json
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ltrec import artifacts, console
from ltrec.artifacts import SPLITS
from ltrec.data import long_tail
from ltrec.data.contents import Contents
from ltrec.data.image_lists import list_text
from ltrec.data.images.cache import cache_text, training_files
from ltrec.data.inspection import inspect
from ltrec.data.shot_groups import shot_groups
from ltrec.data.sources.scanning import is_text
from ltrec.data.splits import SplitSettings, carve
from ltrec.errors import UserError, some
from ltrec.project import state_dir

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from ltrec.artifacts import Layout, Split
    from ltrec.config.params import Params
    from ltrec.config.prepare import PrepareSettings
    from ltrec.data.image_lists import ImageList
    from ltrec.data.long_tail import LongTailSettings
    from ltrec.data.shot_groups import ShotSettings
    from ltrec.data.sources.collection import Collection

    Splits = Mapping[Split, ImageList]


def run(params: Params, *, decode: bool | None = None) -> None:
    """Write the lists, the class names and what is in them; `decode` replaces the parameter's value."""
    settings = params.prepare if decode is None else params.prepare.model_copy(update={"decode": decode})
    prepare(settings, seed=params.seed, shots=params.evaluate.shots, layout=artifacts.Layout())


def prepare(settings: PrepareSettings, *, seed: int, shots: ShotSettings, layout: Layout) -> None:
    """Write everything or, when it raises, nothing.

    Raises:
        UserError: no data, no image that can be read, fewer than two classes, or classes with too few images.
    """
    root = Path(settings.source.root)
    found = settings.source.scan()
    _check_names(found, root)
    if settings.openset is not None:
        found = settings.openset.set_apart(found, root)
    contents = Contents(None)
    if settings.decode:
        found, contents = _decoded(found, root, settings.workers)
    collection = _without_untrainable(found)
    collection, splits, carved = _split(collection, settings.split, seed, root)
    drawn = splits
    if settings.long_tail is not None:
        splits = splits | {"train": _cut(splits["train"], collection.classes, settings.long_tail, seed, carved)}
    if settings.openset is not None:
        splits = settings.openset.add(splits, collection.unknown, seed)
    # val may be the test images on purpose: what is said of those is said once.
    own: tuple[Split, ...] = ("train", "test") if settings.split.val == "test" else SPLITS
    _warn_skipped(collection, layout)
    _warn_untested(splits, collection.classes, own)
    split_digests = {split: contents.digest([splits[split]]) for split in SPLITS}
    stats = {
        "digest": contents.digest(splits[split] for split in SPLITS),
        **_class_stats(splits, collection, shots),
        "skipped": [{"path": skip.path, "reason": skip.reason} for skip in collection.skipped],
        "duplicates_across_splits": _count_leaks({split: splits[split] for split in own}, contents),
        "unused": len(drawn["train"]) - len(splits["train"]),
        "origin": {
            split: "the test images" if split not in own else "carved from train" if split in carved else "given"
            for split in ("val", "test")
        },
    }
    if settings.openset is not None:
        stats["unknown"] = {split: len(splits[split]) - stats["images"][split] for split in ("val", "test")}
    copies = cache_text(settings.cache, root, splits["train"].paths, contents.digests or {})
    _write(layout, splits, collection.classes, split_digests, stats, copies)
    if settings.cache is not None:
        train = splits["train"].paths
        training_files(layout.cache_list, root, train, folder=state_dir() / "cache", workers=settings.workers)
    console.say(
        f"prepare: {len(collection.classes)} classes, "
        + ", ".join(f"{split} {number:,}" for split, number in stats["images"].items())
        + " images"
        + "".join(f", {number:,} unknown in {split}" for split, number in stats.get("unknown", {}).items())
        + f", imbalance factor {stats['imbalance_factor']:g} → {layout.stats.parent}"
    )


def _check_names(found: Collection, root: Path) -> None:
    """Names that a list of classes, one a line, can hold."""
    unfit = [
        name
        for name in (*found.classes, *filter(None, found.supercategories))
        if not name.strip() or not is_text(name) or re.search(r"[\r\n]", name)
    ]
    if unfit:
        raise UserError(
            f"a class name must be UTF-8 text in one line, got {some([f'{name!a}' for name in unfit])}", where=str(root)
        )
    twice = [f"'{name}'" for name, times in Counter(found.classes).items() if times > 1]
    if twice:
        raise UserError(f"classes must have different names; more than one is called {some(twice)}", where=str(root))


def _decoded(found: Collection, root: Path, workers: int | None) -> tuple[Collection, Contents]:
    """What can be decoded of what was found."""
    # A path may stand in two splits.
    listed = [path for images in found.splits.values() for path in images.paths]
    paths = list(dict.fromkeys([*listed, *found.unknown]))
    with console.progress("prepare: files", len(paths)) as advance:
        digests, unreadable = inspect(root, paths, workers=workers, advance=advance)
    if not digests:
        skips = some([f"{skip.path}: {skip.reason}" for skip in (*unreadable, *found.skipped)])
        raise UserError(f"no image could be read ({skips or 'its folders are empty'})", where=str(root))
    return found.keep(digests, unreadable), Contents(digests)


def _without_untrainable(collection: Collection) -> Collection:
    """Classes without a training image cannot be learnt."""
    counts = [images.counts(len(collection.classes)) for images in collection.splits.values()]
    total = np.sum(counts, axis=0)
    untrainable = np.flatnonzero(collection.splits["train"].counts(len(collection.classes)) == 0).tolist()
    return collection.drop(
        {
            label: f"no training image ({total[label]} in val and test)" if total[label] else "empty class"
            for label in untrainable
        }
    )


def _split(
    collection: Collection, settings: SplitSettings, seed: int, root: Path
) -> tuple[Collection, dict[Split, ImageList], dict[Split, int]]:
    """Carve the splits that the source lacks from train; small classes raise or go.

    Returns:
        The classes that stay, the splits, and how many images of each class each carved split took.
    """
    missing: list[Split] = [split for split in settings.carved if split not in collection.splits]
    counts = collection.splits["train"].counts(len(collection.classes))
    needed = settings.needed(missing)
    small = {label: int(count) for label, count in enumerate(counts) if not settings.suffices(int(count), missing)}
    if small and settings.small_classes == "error":
        named = some([f"'{collection.classes[label]}' ({count})" for label, count in small.items()])
        raise UserError(
            f"too few images to split in {len(small)} of {len(counts)} classes: {named}; a class needs {needed}"
            f" ({', '.join(f'{split} {getattr(settings, split)}' for split in missing)}, 1 or more for train):"
            f" ask for less, add images, or set small_classes: drop{_beside(collection)}",
            where="params.yaml: prepare.split",
        )
    collection = collection.drop(
        {label: f"too few images to split ({count}; {needed} are needed)" for label, count in small.items()}
    )
    if len(collection.classes) < 2:
        raise UserError(
            f"{len(collection.classes)} class(es) with enough images; a classifier needs two{_beside(collection)}",
            where=str(root),
        )
    for split, images in collection.splits.items():
        # Carving in its place would give another split than the one asked for.
        if not len(images):
            raise UserError(f"of the given {split} split no image is left{_beside(collection)}", where=str(root))
    train = collection.splits["train"]
    per_class = settings.per_class(int(train.counts(len(collection.classes)).min()), missing)
    if missing:
        absent = " and no ".join(per_class)
        shares = " and ".join(f"{number:,} for {split}" for split, number in per_class.items())
        console.say(f"prepare: the data has no {absent} split: each class of train gives {shares}")
    splits = dict(collection.splits) | carve(train, per_class, seed)
    if settings.val == "test":
        _warn_selected_on_test(len(splits.get("val", ())))
        splits["val"] = splits["test"]
    return collection, splits, per_class


def _beside(collection: Collection) -> str:
    """What was skipped, which may be why too little is left."""
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


def _cut(
    train: ImageList, classes: Sequence[str], profile: LongTailSettings, seed: int, carved: Mapping[Split, int]
) -> ImageList:
    kept, asked = long_tail.cut(train, len(classes), profile, seed)
    has = train.counts(len(classes))
    short = [f"'{classes[label]}' ({has[label]} of {asked[label]})" for label in np.flatnonzero(has < asked).tolist()]
    if short:
        gone = "".join(f"; {split} took {number:,} of each class before" for split, number in carved.items())
        console.warn(
            f"prepare: {len(short)} of {len(classes)} classes have fewer training images than"
            f" prepare.long_tail asks, and keep what they have: {some(short)}{gone}"
        )
    return kept


def _warn_skipped(collection: Collection, layout: Layout) -> None:
    if collection.skipped:
        listed = some([f"{skip.path} ({skip.reason})" for skip in collection.skipped])
        console.warn(f"prepare: skipped {len(collection.skipped)}: {listed}; all are listed in {layout.stats}")


def _warn_untested(splits: Splits, classes: Sequence[str], own: Sequence[Split]) -> None:
    for split in own:
        none = np.flatnonzero(splits[split].counts(len(classes)) == 0)
        absent = [f"'{classes[label]}'" for label in none.tolist()]
        if absent:
            console.warn(f"prepare: {len(absent)} of {len(classes)} classes have no {split} image: {some(absent)}")


def _count_leaks(splits: Splits, contents: Contents) -> int:
    """Contents that lie in more than one split; said, since they make test figures too good."""
    leaks = contents.leaks(splits)
    if leaks:
        how = "byte for byte " if contents.digests is not None else ""
        console.warn(
            f"prepare: {len(leaks)} image(s) lie {how}in more than one split, which flatters the figures: {some(leaks)}"
        )
    return len(leaks)


def _class_stats(splits: Splits, collection: Collection, shots: ShotSettings) -> dict[str, Any]:
    counts: dict[Split, NDArray[np.int64]] = {split: splits[split].counts(len(collection.classes)) for split in SPLITS}
    groups = shot_groups(counts["train"], shots.many_above, shots.few_below)
    kinds = collection.supercategories
    return {
        "classes": [
            {
                "name": name,
                **({"supercategory": kinds[label]} if kinds else {}),
                **{split: int(counts[split][label]) for split in SPLITS},
                "shot": str(groups[label]),
            }
            for label, name in enumerate(collection.classes)
        ],
        "images": {split: int(counts[split].sum()) for split in SPLITS},
        "imbalance_factor": float(counts["train"].max() / counts["train"].min()),
    }


def _write(
    layout: Layout,
    splits: Splits,
    classes: Sequence[str],
    split_digests: Mapping[Split, str],
    stats: Mapping[str, object],
    copies: str,
) -> None:
    texts = {
        layout.cache_list: copies,
        layout.stats: json.dumps(stats, indent=2, ensure_ascii=False, allow_nan=False) + "\n",
        layout.classes: "".join(f"{name}\n" for name in classes),
        **{layout.split_list(split): list_text(splits[split]) for split in SPLITS},
        **{layout.split_digest(split): f"{digest}\n" for split, digest in split_digests.items()},
    }
    with contextlib.ExitStack() as files:
        # All are written before the first takes its place, so that a failure replaces none of them.
        for path, text in texts.items():
            files.enter_context(artifacts.replacing(path)).write_text(text, encoding="utf-8", newline="\n")
