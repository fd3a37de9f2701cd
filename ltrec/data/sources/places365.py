"""Places365-Standard as it is distributed: by its lists, or as class folders.

The official val is the test split, as in Places-LT (Liu et al. 2019); ltrec's own val is carved from train.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ltrec.data.image_lists import lines_of, read_list
from ltrec.data.sources.annotations import Below, annotation_file, collection_of
from ltrec.data.sources.collection import Collection
from ltrec.data.sources.scanning import images_of_classes, visible_folders
from ltrec.errors import UserError, some
from ltrec.settings import Settings, Text

if TYPE_CHECKING:
    from ltrec.artifacts import Split
    from ltrec.data.image_lists import ImageList

_CATEGORIES, _TRAIN, _VAL = "categories_places365.txt", "places365_train_standard.txt", "places365_val.txt"
_INITIAL = re.compile(r"/[a-z]/")


class Places365Source(Settings):
    """Places365-Standard: the published lists beside the image folders, or else `train/<class>/*` and `val/<class>/*`.

    The official val is the test split.
    """

    kind: Literal["places365"]
    root: Text = "data"
    """The folder that lists and images lie in."""
    train: Below = "data_256_standard"
    """Where the lists' training images are, relative to root; `data_large_standard` for the large ones."""
    val: Below = "val_256"
    """Where the lists' validation images are, relative to root; `val_large` for the large ones."""

    def scan(self) -> Collection:
        root = Path(self.root)
        if (root / _TRAIN).is_file():
            return _scan_lists(root, self.train, self.val)
        if (root / "train").is_dir() and (root / "val").is_dir():
            return _scan_folders(root)
        raise UserError(
            f"holds neither {_TRAIN} nor the folders train and val" if root.is_dir() else "no such folder",
            where=str(root),
        )


def _scan_lists(root: Path, train: str, val: str) -> Collection:
    """Return the images that the published lists name; whether each is there shows later, when it is read."""
    classes = categories(annotation_file(root, _CATEGORIES))
    for folder, setting in ((train, "train"), (val, "val")):
        if not (root / folder).is_dir():
            raise UserError(
                f"no such folder; params.yaml: prepare.source.{setting} names the one that the images are in",
                where=str(root / folder),
            )
    published: dict[Split, tuple[str, str]] = {"train": (_TRAIN, train), "test": (_VAL, val)}
    lists: dict[Split, tuple[ImageList, Path]] = {}
    for split, (name, folder) in published.items():
        file = annotation_file(root, name)
        lists[split] = read_list(file, len(classes), below=folder), file
    return collection_of(classes, lists)


def _scan_folders(root: Path) -> Collection:
    """Return the images in `train/<class>/*` and `val/<class>/*`, where `-` stands for the `/` in a class's name.

    Classes are in the published order if the list of categories is there, else in that of their names.
    """
    if (root / _CATEGORIES).is_file():
        classes = tuple(name.replace("/", "-") for name in categories(root / _CATEGORIES))
    else:
        classes = tuple(sorted(folder.name for folder in visible_folders(root / "train", root)[0]))
    labels = {name: label for label, name in enumerate(classes)}
    train, skipped = images_of_classes(root / "train", root, labels)
    test, skipped_test = images_of_classes(root / "val", root, labels)
    return Collection(classes, {"train": train, "test": test}, tuple(sorted(skipped + skipped_test)))


def categories(file: Path) -> tuple[str, ...]:
    """Return class names by label from lines such as `/a/arena/hockey 11`, without the initial that sorts them."""
    names: list[str] = []
    for number, line in lines_of(file):
        path, _, label = line.rpartition(" ")
        if not _INITIAL.match(path) or label != str(len(names)):
            raise UserError(f"expected `/a/airfield {len(names)}`, got '{line}'", where=f"{file}:{number}")
        names.append(_INITIAL.sub("", path, count=1))
    repeated = sorted({repr(name) for name in names if names.count(name) > 1})
    if repeated or not names:
        raise UserError(f"has {some(repeated)} twice" if repeated else "names no class", where=str(file))
    return tuple(names)
