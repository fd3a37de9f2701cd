"""iNaturalist 2017–2021, and other COCO-style files with one category an image."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ltrec.data.image_lists import ImageList
from ltrec.data.sources.annotations import annotation_file, listed, without_repeats
from ltrec.data.sources.collection import Collection, Skipped
from ltrec.errors import UserError, some
from ltrec.settings import Settings, Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ltrec.artifacts import Split

    Entry = Mapping[str, Any]

_KEYS = frozenset(
    {"images", "annotations", "categories", "id", "file_name", "image_id", "category_id", "name", "supercategory"}
)


class INaturalistSource(Settings):
    """The competitions' files: `images`, `annotations` and, in most years, `categories`."""

    kind: Literal["inaturalist"]
    root: Text = "data"
    """The folder that the files' `file_name`s are relative to; the files below are named relative to it as well."""
    train: Text
    """Such as train2018.json."""
    val: Text | None = None
    """Of the validation images; null: carved from train."""
    test: Text | None = None
    """Of the test images, such as val2018.json, since the tests' own labels are not public; null: carved from train."""
    categories: Text | None = None
    """A list that takes the place of the files' `categories`, such as 2018's and 2019's categories.json with the names
    that were withheld during the competitions."""

    def scan(self) -> Collection:
        root = Path(self.root)
        files: dict[Split, str | None] = {"train": self.train, "val": self.val, "test": self.test}
        categories = None if self.categories is None else _read_categories(annotation_file(root, self.categories))
        return collect(
            {split: _read(annotation_file(root, name), categories) for split, name in files.items() if name is not None}
        )


@dataclass(frozen=True)
class Annotated:
    """What one file says."""

    file: str
    paths: Sequence[str]
    """Of the images that have a category, (N,)."""
    category_ids: Sequence[int]
    """Of each of them, (N,)."""
    unlabelled: Sequence[str]
    """The images without."""
    categories: Mapping[int, Entry]
    """By id; empty in the releases that have none."""


def collect(files: Mapping[Split, Annotated]) -> Collection:
    """Categories in the order of their ids, whatever gaps those have, become the classes 0 … C - 1.

    Raises:
        UserError: annotations name a category that `categories` lacks, or an image has two.
    """
    categories = {number: entry for each in reversed([*files.values()]) for number, entry in each.categories.items()}
    for each in files.values():
        absent = sorted(set(each.category_ids) - categories.keys())
        if categories and absent:
            raise UserError(
                f"annotations name {len(absent)} category_id(s) that `categories` lacks: {some(absent)}",
                where=each.file,
            )
    ids = sorted(categories or {number for each in files.values() for number in each.category_ids})
    names = _names(ids, categories)
    kinds = tuple(categories.get(number, {}).get("supercategory") or None for number in ids)
    splits, skipped = {}, []
    for split, each in files.items():
        images = ImageList(tuple(each.paths), np.searchsorted(ids, each.category_ids).astype(np.int64))
        splits[split], repeats = without_repeats(images, names, each.file)
        skipped += [*(Skipped(path, "no annotation") for path in each.unlabelled), *repeats]
    return Collection(names, splits, tuple(skipped), supercategories=kinds if any(kinds) else ())


def _names(ids: Sequence[int], categories: Mapping[int, Entry]) -> tuple[str, ...]:
    """A category without a name goes by its id; where two have the same name, the ids tell them apart."""
    given = [str(categories.get(number, {}).get("name") or number) for number in ids]
    times = Counter(given)
    return tuple(name if times[name] == 1 else f"{name} ({number})" for name, number in zip(given, ids, strict=True))


def _read_categories(file: Path) -> dict[int, Entry]:
    content = _load(file)
    return _by_id(content if isinstance(content, dict) else {"categories": content}, str(file))


def _by_id(content: Entry, where: str) -> dict[int, Entry]:
    """The categories of a file."""
    categories = _entries(content, "categories", where)
    ids = _column(categories, "id", int, f"{where}: categories")
    _check_unique(ids, "categories", where)
    return dict(zip(ids, categories, strict=True))


def _read(file: Path, categories: Mapping[int, Entry] | None) -> Annotated:
    """Join a file's annotations to its images, by `image_id`.

    Args:
        file: Of one split.
        categories: In place of the file's own.

    Raises:
        UserError: not such a file, annotations without an image, or images with two categories.
    """
    where = str(file)
    content = _load(file)
    if not isinstance(content, dict):
        raise UserError("must be a mapping with images and annotations", where=where)
    if not content.get("annotations") and "images" in content:
        raise UserError("has no annotations; the labels of the competitions' test images are not public", where=where)
    images, annotations = _entries(content, "images", where), _entries(content, "annotations", where)
    if categories is None:
        categories = _by_id(content, where) if "categories" in content else {}
    names = listed(_column(images, "file_name", str, f"{where}: images"), "images[{}]", where, first=0)
    ids = _column(images, "id", int | str, f"{where}: images")
    of_annotation = _column(annotations, "image_id", int | str, f"{where}: annotations")
    given = _column(annotations, "category_id", int, f"{where}: annotations")
    _check_unique(ids, "images", where)
    by_image = _category_of_image(of_annotation, given, dict(zip(ids, names, strict=True)), where)
    labelled = [(name, by_image[number]) for number, name in zip(ids, names, strict=True) if number in by_image]
    return Annotated(
        file=where,
        paths=[name for name, _ in labelled],
        category_ids=[category for _, category in labelled],
        unlabelled=[name for number, name in zip(ids, names, strict=True) if number not in by_image],
        categories=categories,
    )


def _category_of_image(
    image_ids: Sequence[int | str], category_ids: Sequence[int], names: Mapping[int | str, str], where: str
) -> dict[int | str, int]:
    """Several annotations of an image, such as boxes, must agree."""
    orphans = sorted({number for number in image_ids if number not in names}, key=str)
    if orphans:
        raise UserError(
            f"annotations of {len(orphans):,} image(s) that `images` lacks: image_id {some(orphans)}", where=where
        )
    found: dict[int | str, int] = {}
    conflicts = {}
    for image, category in zip(image_ids, category_ids, strict=True):
        if found.setdefault(image, category) != category:
            conflicts[image] = f"'{names[image]}' ({found[image]} and {category})"
    if conflicts:
        raise UserError(f"{len(conflicts):,} image(s) have two categories: {some([*conflicts.values()])}", where=where)
    return found


def _load(file: Path) -> Any:
    def slim(entry: dict[str, Any]) -> dict[str, Any]:
        # The files of 2021 hold a dozen more keys for each of 2.7 million images.
        return {key: value for key, value in entry.items() if key in _KEYS}

    try:
        with file.open(encoding="utf-8-sig") as opened:
            return json.load(opened, object_hook=slim)
    except UnicodeDecodeError as error:
        raise UserError(f"is not UTF-8 text ({error.reason} at byte {error.start})", where=str(file)) from None
    except (json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"is not JSON, or was cut off ({error})", where=str(file)) from None


def _entries(content: Entry, section: str, where: str) -> list[Entry]:
    entries = content.get(section)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UserError(f"must have `{section}`, a list of mappings, as the files of iNaturalist do", where=where)
    return entries


def _column(entries: Iterable[Entry], key: str, kind: Any, where: str) -> list[Any]:
    values = [entry.get(key) for entry in entries]
    for at, value in enumerate(values):
        if not isinstance(value, kind):
            wanted = "text" if kind is str else "a whole number" if kind is int else "a number or text"
            raise UserError(f"{key} must be {wanted}, got {str(value)[:60]!r}", where=f"{where}[{at}]")
    return values


def _check_unique(ids: Sequence[int | str], section: str, where: str) -> None:
    repeated = [number for number, times in Counter(ids).items() if times > 1]
    if repeated:
        raise UserError(f"`{section}` has {len(repeated):,} id(s) more than once: {some(repeated)}", where=where)
