"""Images in folders: `root/<class>/*`, or `root/{train,val,test}/<class>/*`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ltrec import console
from ltrec.artifacts import SPLITS
from ltrec.data.sources.alike import joined
from ltrec.data.sources.collection import Collection, Skipped
from ltrec.data.sources.scanning import hidden_image_folders, images_below, visible_folders
from ltrec.errors import UserError, some
from ltrec.settings import Settings, Text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ltrec.artifacts import Split
    from ltrec.data.image_lists import ImageList

_LIKE_SPLITS = frozenset({*SPLITS, "valid", "validation", "dev", "testing", "training"})
_HINT = "`ltrec data digits` writes sample data; your own goes there as <class>/<image>"


def natural_key(name: str) -> tuple[list[tuple[int, str]], str]:
    """Return a sort key by which numbers inside names go by value: 2 before 10. They may have any number of digits."""
    pieces = re.split(r"([0-9]+)", name)
    # Every second piece is a number, so that numbers are only compared with numbers.
    return [_by_value(piece) if place % 2 else (0, piece.casefold()) for place, piece in enumerate(pieces)], name


def _by_value(digits: str) -> tuple[int, str]:
    """Return a sort key of whole numbers without making them: Python makes none of more than 4,300 digits."""
    significant = digits.lstrip("0")
    return len(significant), significant


class FolderSource(Settings):
    """A folder with one sub-folder for each class, or with `train`, `val` and `test` above the classes."""

    kind: Literal["folder"] = "folder"
    root: Text = "data"
    """The folder that holds the class folders, or `train`, `val` and `test` above them."""
    names: dict[Text, Text] = {}
    """What classes are called where they are shown, as `folder: name`; labels go by the folders, so that another name
    trains nothing."""
    join_alike: bool = False
    """Whether folders alike but for case, blanks at the ends or Unicode form are one class, by the first one's name."""

    def scan(self) -> Collection:
        return scan_folder(Path(self.root), join_alike=self.join_alike).called(self.names)


def scan_folder(root: Path, *, order: Callable[[str], Any] = natural_key, join_alike: bool = False) -> Collection:
    """Return the images below the class folders, however deep, in the order of their paths.

    Hidden files and systems' litter are passed over, and hidden class folders said; anything else that cannot be an
    image is listed as skipped.

    Args:
        root: The folder that holds the class folders, or the splits above them.
        order: The sort key of the class names.
        join_alike: Whether folders alike but for case, blanks at the ends or Unicode form are one class.

    Raises:
        UserError: there is no such folder, nothing in it, or split folders stand beside class folders.
    """
    by_split, strays = _class_folders(root)
    names = sorted({folder.name for folders in by_split.values() for folder in folders}, key=order)
    class_of = joined(names, join=join_alike, where=str(root))
    classes = tuple(name for name in names if class_of[name] == name)
    numbers = {name: label for label, name in enumerate(classes)}
    labels = {name: numbers[class_of[name]] for name in names}
    skipped = [Skipped(path, "not in a class folder") for path in strays]
    splits: dict[Split, ImageList] = {}
    for split, folders in by_split.items():
        images, unusable = images_below([(folder, labels[folder.name]) for folder in folders], root)
        skipped += unusable
        # An empty folder is as good as none.
        if split == "train" or len(images) or unusable:
            splits[split] = images
    if not skipped and not any(len(images) for images in splits.values()):
        raise UserError(f"its class folders are empty; {_HINT}", where=str(root))
    return Collection(classes, splits, tuple(sorted(skipped)))


def _class_folders(root: Path) -> tuple[dict[Split, list[Path]], list[str]]:
    """Return the class folders of each split, and the paths of files that lie outside of them."""
    if not root.exists():
        raise UserError(f"no such folder; {_HINT}", where=str(root))
    if not root.is_dir():
        raise UserError("is a file, not a folder of class folders", where=str(root))
    folders, strays = visible_folders(root, root)
    if not folders:
        raise UserError(f"has no class folders; {_HINT}", where=str(root))
    if not _are_splits({folder.name for folder in folders}, root):
        _say_hidden([root])
        return {"train": folders}, strays
    by_split: dict[Split, list[Path]] = {}
    for split in SPLITS:
        if (root / split).is_dir():
            by_split[split], stray_files = visible_folders(root / split, root)
            strays += stray_files
    _say_hidden([root / split for split in by_split])
    return by_split, strays


def _say_hidden(folders: Sequence[Path]) -> None:
    """Say which folders beside the class folders are passed over although images lie in them."""
    hidden = [f"{folder / name}" for folder in folders for name in hidden_image_folders(folder)]
    if hidden:
        console.warn(
            f"prepare: {len(hidden)} hidden folder(s) with images are no classes: {some(hidden)};"
            " a class folder's name must not begin with a dot"
        )


def _are_splits(names: set[str], root: Path) -> bool:
    """Return whether the folders are splits; split and class folders together are a mistake that would go unseen."""
    if "train" in names and names <= set(SPLITS):
        return True
    like_splits = sorted(names & _LIKE_SPLITS)
    if len(like_splits) > 1 or names <= _LIKE_SPLITS:
        others = sorted(names - set(SPLITS), key=natural_key)
        beside = f" beside '{others[0]}'" if others else ", but no train"
        raise UserError(
            f"has folders {', '.join(name for name in like_splits if name not in others[:1])}{beside}: name them train,"
            " val and test (val and test may be missing) with the classes below, or have one folder for each class",
            where=str(root),
        )
    return False
