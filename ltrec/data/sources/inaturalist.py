"""iNaturalist 2017–2021, and other COCO-style files with one category an image."""

from __future__ import annotations

import json
import reprlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from ltrec.artifacts import present
from ltrec.data.image_lists import ImageList
from ltrec.data.sources.annotations import annotation_file, distinct_names, listable_paths, without_repeats
from ltrec.data.sources.collection import Collection, Skipped
from ltrec.errors import UserError, one_line, some
from ltrec.settings import Settings, Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ltrec.artifacts import Split

    Entry = Mapping[str, Any]

_KEYS = frozenset(
    {"images", "annotations", "categories", "id", "file_name", "image_id", "category_id", "name", "supercategory"}
)

_WANTED = {int: "a whole number", str: "text", NoneType: "null"}


class INaturalistSource(Settings):
    """The competitions' files: `images`, `annotations` and, in most years, `categories`."""

    kind: Literal["inaturalist"]
    root: Text = "data"
    """The folder that the files' `file_name`s are relative to; the files below are named relative to it as well."""
    train: Text
    """The file of the training images, such as train2018.json."""
    val: Text | None = None
    """The file of the validation images; null: they are carved from train."""
    test: Text | None = None
    """The file of the test images, such as val2018.json, since the tests' own labels are not public; null: they are
    carved from train."""
    categories: Text | None = None
    """A list that takes the place of the files' `categories`, such as 2018's and 2019's categories.json with the names
    that were withheld during the competitions."""

    def scan(self, *, group: str | None = None) -> Collection:
        """Return what the files hold; `group` is the key of the images' groups, such as location_id."""
        root = Path(self.root)
        files: dict[Split, str | None] = {"train": self.train, "val": self.val, "test": self.test}
        categories = None if self.categories is None else read_categories(annotation_file(root, self.categories))
        return collect(
            {
                split: read(annotation_file(root, name), categories, group=group)
                for split, name in files.items()
                if name is not None
            }
        )


@dataclass(frozen=True)
class Annotated:
    """What one file says of N images that have a category, and of the others."""

    file: str
    paths: Sequence[str]
    """Paths of the N images."""
    category_ids: Sequence[int]
    """Their categories, (N,)."""
    unlabelled: Sequence[str]
    """Paths of the images without a category."""
    categories: Mapping[int, Entry]
    """The categories by id; empty in the releases that have none."""
    groups: Mapping[str, str]
    """The group of each image that has one, by its path."""
    several: Mapping[str, str]
    """The categories of the images that have more than one, as a text, by their paths."""


def collect(files: Mapping[Split, Annotated]) -> Collection:
    """Return the collection: categories in the order of their ids, whatever gaps those have, are the classes 0 … C - 1.

    The first file that has a category says what it is called.
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
    names = distinct_names([str(categories.get(number, {}).get("name") or number) for number in ids], ids)
    kinds = tuple(categories.get(number, {}).get("supercategory") or None for number in ids)
    label_of = {number: label for label, number in enumerate(ids)}
    splits, skipped = {}, []
    for split, each in files.items():
        images = ImageList(
            tuple(each.paths), np.array([label_of[number] for number in each.category_ids], dtype=np.int64)
        )
        splits[split], repeats = without_repeats(images, names, each.file)
        skipped += [*(Skipped(path, "no annotation") for path in each.unlabelled), *repeats]
        skipped += [Skipped(path, f"several categories: {named}") for path, named in each.several.items()]
    groups = {path: group for each in files.values() for path, group in each.groups.items()}
    return Collection(names, splits, tuple(skipped), supercategories=kinds if any(kinds) else (), groups=groups)


def read_categories(file: Path) -> dict[int, Entry]:
    content = _load(file)
    return _categories_by_id(content if isinstance(content, dict) else {"categories": content}, str(file))


def _categories_by_id(content: Entry, where: str) -> dict[int, Entry]:
    categories = _entries(content, "categories", where)
    for key, kind in (("name", int | str | None), ("supercategory", str | None)):
        _column(categories, key, kind, f"{where}: categories")
    return dict(zip(_ids(categories, "categories", int, where), categories, strict=True))


def read(
    file: Path, categories: Mapping[int, Entry] | None, *, group: str | None = None, skip_several: bool = False
) -> Annotated:
    """Join a split's annotations to its images by `image_id`.

    Args:
        file: The split's file.
        categories: What takes the place of the file's own categories.
        group: The key of the images' groups.
        skip_several: Whether images with several categories are set apart; else they are refused.
    """
    where = str(file)
    content = _load(file, group)
    if not isinstance(content, dict):
        raise UserError("must be a mapping with images and annotations", where=where)
    if not content.get("annotations") and "images" in content:
        raise UserError("has no annotations; the labels of the competitions' test images are not public", where=where)
    images, annotations = _entries(content, "images", where), _entries(content, "annotations", where)
    if categories is None:
        categories = _categories_by_id(content, where) if "categories" in content else {}
    paths = listable_paths(_column(images, "file_name", str, f"{where}: images"), "images[{}]", where, first=0)
    path_of = dict(zip(_ids(images, "images", int | str, where), paths, strict=True))
    image_ids = _column(annotations, "image_id", int | str, f"{where}: annotations")
    category_ids = _column(annotations, "category_id", int, f"{where}: annotations")
    category_of, several = _category_of_image(image_ids, category_ids, path_of, where)
    if several and not skip_several:
        conflicts = [f"'{path_of[image]}' ({' and '.join(map(str, ids[:2]))})" for image, ids in several.items()]
        raise UserError(f"{len(conflicts):,} image(s) have two categories: {some(conflicts)}", where=where)
    labelled = [(path, category_of[image]) for image, path in path_of.items() if image in category_of]
    return Annotated(
        file=where,
        paths=[path for path, _ in labelled],
        category_ids=[category for _, category in labelled],
        unlabelled=[path for image, path in path_of.items() if image not in category_of and image not in several],
        categories=categories,
        groups={} if group is None else _groups(images, paths, group, where),
        several={
            path_of[image]: some([categories.get(number, {}).get("name") or number for number in ids])
            for image, ids in several.items()
        },
    )


def _groups(images: Sequence[Entry], paths: Sequence[str], key: str, where: str) -> dict[str, str]:
    """Return the group of each image that has one, by its path.

    Raises:
        UserError: no image has one.
    """
    values = _column(images, key, int | str | None, f"{where}: images")
    groups = {path: str(value) for path, value in zip(paths, values, strict=True) if value is not None}
    if not groups:
        raise UserError(f"none of its {len(images):,} images has a '{key}' (prepare.split.group)", where=where)
    return groups


def _category_of_image(
    image_ids: Sequence[int | str], category_ids: Sequence[int], path_of: Mapping[int | str, str], where: str
) -> tuple[dict[int | str, int], dict[int | str, list[int]]]:
    """Return the category of each image whose annotations, such as boxes, agree, and the categories of the others."""
    orphans = sorted({image for image in image_ids if image not in path_of}, key=str)
    if orphans:
        raise UserError(
            f"annotations of {len(orphans):,} image(s) that `images` lacks: image_id {some(orphans)}", where=where
        )
    category_of: dict[int | str, int] = {}
    several: dict[int | str, list[int]] = {}
    for image, category in zip(image_ids, category_ids, strict=True):
        first = category_of.setdefault(image, category)
        if first != category and category not in several.setdefault(image, [first]):
            several[image].append(category)
    return {image: category for image, category in category_of.items() if image not in several}, several


def _load(file: Path, group: str | None = None) -> Any:
    kept = _KEYS | {group}

    def slim(entry: dict[str, Any]) -> dict[str, Any]:
        # The files of 2021 hold a dozen more keys for each of 2.7 million images.
        return {key: value for key, value in entry.items() if key in kept}

    try:
        with present(file).open(encoding="utf-8-sig") as opened:
            return json.load(opened, object_hook=slim)
    except UnicodeDecodeError as error:
        raise UserError(f"is not UTF-8 text ({error.reason} at byte {error.start})", where=str(file)) from None
    except RecursionError:
        raise UserError("is not JSON, or was cut off (it is nested too deep)", where=str(file)) from None
    except json.JSONDecodeError as error:
        raise UserError(f"is not JSON, or was cut off ({error})", where=str(file)) from None
    except ValueError as error:  # Python reads no whole number of more than 4,300 digits
        raise UserError(f"holds a number that cannot be read ({one_line(error, 80)})", where=str(file)) from None


def _entries(content: Entry, section: str, where: str) -> list[Entry]:
    entries = content.get(section)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UserError(f"must have `{section}`, a list of mappings, as the files of iNaturalist do", where=where)
    return entries


def _column(entries: Iterable[Entry], key: str, kind: Any, where: str) -> list[Any]:
    """Return what each entry has under a key, which must be of a kind: int, str, either, or one of them or nothing."""
    values = [entry.get(key) for entry in entries]
    for place, value in enumerate(values):
        # To Python, true and false are whole numbers.
        if not isinstance(value, kind) or isinstance(value, bool):
            wanted = " or ".join(name for each, name in _WANTED.items() if each in (get_args(kind) or (kind,)))
            raise UserError(f"{key} must be {wanted}, got {reprlib.repr(value)}", where=f"{where}[{place}]")
    return values


def _ids(entries: Sequence[Entry], section: str, kind: Any, where: str) -> list[Any]:
    """Return the entries' ids, which must differ."""
    ids = _column(entries, "id", kind, f"{where}: {section}")
    repeated = [number for number, times in Counter(ids).items() if times > 1]
    if repeated:
        raise UserError(f"`{section}` has {len(repeated):,} id(s) more than once: {some(repeated)}", where=where)
    return ids
