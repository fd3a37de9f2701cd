"""Find the images, decode every file once, split by seed, cut the long tail, write the lists."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltrec import artifacts, console, project
from ltrec.artifacts import SPLITS
from ltrec.data import findings, long_tail
from ltrec.data.contents import Contents
from ltrec.data.division import divide, without_untrainable
from ltrec.data.drawing import Draw
from ltrec.data.grouping import group_statistics
from ltrec.data.image_lists import list_text
from ltrec.data.images.cache import cache_text, training_files
from ltrec.data.inspection import inspect
from ltrec.data.last_splits import RememberedSplits, warn_changed
from ltrec.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ltrec.artifacts import Layout
    from ltrec.config.params import Params
    from ltrec.config.prepare import PrepareSettings
    from ltrec.data.shot_groups import ShotSettings
    from ltrec.data.sources.collection import Collection


def run(params: Params, *, decode: bool | None = None) -> None:
    """Write the lists, the class names and what is in them; `decode` replaces the parameter's value."""
    settings = params.prepare if decode is None else params.prepare.model_copy(update={"decode": decode})
    # An experiment of DVC's in a folder of its own is no successor of what lies in the project.
    memory = project.state_dir() / "prepare" / "splits.npz" if project.root() == Path.cwd() else None
    prepare(settings, seed=params.seed, shots=params.evaluate.shots, layout=artifacts.Layout(), memory=memory)


def prepare(
    settings: PrepareSettings, *, seed: int, shots: ShotSettings, layout: Layout, memory: Path | None = None
) -> None:
    """Write everything or, when it raises, nothing.

    Args:
        settings: What to prepare, and how.
        seed: What the draws follow, beside the images' contents.
        shots: Where shot groups begin and end.
        layout: Where to write.
        memory: The file that says what was in the splits before; None: nothing is said of that.

    Raises:
        UserError: There is no data, no image that can be read, fewer than two classes, or a class with too few images.
    """
    root = Path(settings.source.root)
    collection = settings.scan()
    findings.require_listable_names(collection, root)
    if settings.openset is not None:
        collection = settings.openset.set_apart(collection, root)
    contents, truncated = Contents(None), set[str]()
    if settings.decode:
        collection, contents, truncated = _decoded(collection, root, settings)
    group = settings.split.group
    groups = {} if group is None else group.of(collection, root, contents, settings.workers)
    draw = Draw(seed, contents, groups)
    collection, carved = divide(without_untrainable(collection), settings.split, draw, root)
    splits, classes = dict(collection.splits), collection.shown
    kept = available = splits["train"]
    if settings.long_tail is not None:
        kept, asked = long_tail.cut(available, len(classes), settings.long_tail, draw)
        findings.warn_short(available, classes, asked, carved)
        splits["train"] = kept
    if settings.openset is not None:
        splits = settings.openset.add(splits, collection.unknown, draw)
    # val may be the test images on purpose: what is said of those is said once.
    distinct = {split: splits[split] for split in SPLITS if split != "val" or settings.split.val != "test"}
    used = {path for images in splits.values() for path in images.paths} if truncated else set[str]()
    findings.warn_skipped(collection, layout.stats)
    findings.warn_truncated(sorted(truncated & used), layout.stats)
    findings.warn_untested(distinct, classes)
    findings.warn_thin(splits["val"], len(classes))
    stats = {
        "digest": contents.digest(splits[split] for split in SPLITS),
        **findings.class_statistics(splits, collection, shots),
        "skipped": [{"path": skip.path, "reason": skip.reason} for skip in collection.skipped],
        "duplicates_across_splits": findings.count_leaks(distinct, contents),
        "unused": len(available) - len(kept),
        "origin": {
            split: "the test images" if split not in distinct else "carved from train" if split in carved else "given"
            for split in ("val", "test")
        },
    }
    if group is not None:
        stats["groups"] = {"by": group.by, **group_statistics(groups, distinct)}
    if settings.truncated == "keep":
        stats["truncated"] = sorted(truncated & used)
    if settings.openset is not None:
        stats["unknown"] = {split: len(splits[split]) - stats["images"][split] for split in ("val", "test")}
    train = splits["train"].paths
    _write(
        {
            layout.cache_list: cache_text(settings.cache, root, train, contents.digests or {}),
            layout.stats: json.dumps(stats, indent=2, ensure_ascii=False, allow_nan=False) + "\n",
            layout.classes: "".join(f"{name}\n" for name in classes),
            **{layout.split_list(split): list_text(splits[split]) for split in SPLITS},
            **{layout.split_digest(split): f"{contents.list_digest(splits[split])}\n" for split in SPLITS},
        }
    )
    if memory is not None:
        warn_changed(memory, splits, contents)
        RememberedSplits.of(splits, contents).write(memory)
    if settings.cache is not None:
        training_files(layout.cache_list, root, train, folder=project.state_dir() / "cache", workers=settings.workers)
    _say(stats, layout)


def _decoded(collection: Collection, root: Path, settings: PrepareSettings) -> tuple[Collection, Contents, set[str]]:
    """Return what can be decoded of a collection, its contents, and the images of which a part is missing."""
    # A path may stand in two splits.
    listed = [path for images in collection.splits.values() for path in images.paths]
    paths = list(dict.fromkeys([*listed, *collection.unknown]))
    keep = settings.truncated == "keep"
    with console.progress("prepare: files", len(paths)) as advance:
        found = inspect(root, paths, workers=settings.workers, advance=advance, keep_truncated=keep)
    if not found.digests:
        why = findings.why_unreadable((*found.skipped, *collection.skipped))
        raise UserError(f"no image could be read ({why or 'its folders are empty'})", where=str(root))
    return collection.keep(found.digests, found.skipped), Contents(found.digests), set(found.truncated)


def _write(texts: Mapping[Path, str]) -> None:
    """Write all files before the first takes its place, so that a failure replaces none of them."""
    with contextlib.ExitStack() as files:
        for path, text in texts.items():
            files.enter_context(artifacts.replacing(path)).write_text(text, encoding="utf-8", newline="\n")


def _say(stats: Mapping[str, Any], layout: Layout) -> None:
    console.say(
        f"prepare: {len(stats['classes'])} classes, "
        + ", ".join(f"{split} {number:,}" for split, number in stats["images"].items())
        + " images"
        + "".join(f", {number:,} unknown in {split}" for split, number in stats.get("unknown", {}).items())
        + f", imbalance factor {stats['imbalance_factor']:g} → {layout.stats.parent}"
    )
