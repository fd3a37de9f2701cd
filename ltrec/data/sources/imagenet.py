"""ImageNet-1k as it is distributed: `train/<wnid>/*` and the official val, in class folders or flat.

Labels are places in the sorted WordNet ids, as everywhere. The official val is the test split; ltrec's own val is
carved from train, as ImageNet-LT's was (Liu et al. 2019: 20 images a class that train does not use).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ltrec import console
from ltrec.data.image_lists import lines_of, make_list
from ltrec.data.sources.annotations import Below, annotation_file, distinct_names
from ltrec.data.sources.collection import Collection, Skipped
from ltrec.data.sources.scanning import images_below, images_of_classes, visible_folders
from ltrec.data.sources.table import read_columns
from ltrec.errors import UserError, one_line, some
from ltrec.settings import Settings, Text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ltrec.data.image_lists import ImageList

_KAGGLE = ("ImageId", "PredictionString")
_WNID = re.compile(r"n[0-9]{8}")
_LAYOUT = "ImageNet is train/<wnid>/* and val/<wnid>/* or val/*; params.yaml: prepare.source.train and .val name them"


class ImageNetSource(Settings):
    """ImageNet-1k: folders of WordNet ids below train; the official val is the test split."""

    kind: Literal["imagenet"]
    root: Text = "data"
    """The folder that train and val lie in."""
    train: Below = "train"
    """The training images, `<wnid>/*`, relative to root; Kaggle's are in `ILSVRC/Data/CLS-LOC/train`."""
    val: Below = "val"
    """The official validation images, relative to root: `<wnid>/*`, or without class folders if val_labels is given."""
    val_labels: Text | None = None
    """The file that says what a val without class folders shows, relative to root: Kaggle's `LOC_val_solution.csv`, or
    the development kit's `ILSVRC2012_validation_ground_truth.txt` with its `meta.mat` beside it."""
    names: Text | None = None
    """The file of class names, relative to root, `<wnid> <name>` a line as `LOC_synset_mapping.txt`; null: the ids."""

    def scan(self) -> Collection:
        root = Path(self.root)
        wnids = _wnids(root / self.train)
        names = wnids if self.names is None else class_names(annotation_file(root, self.names), wnids)
        labels = {wnid: label for label, wnid in enumerate(wnids)}
        train, skipped = images_of_classes(root / self.train, root, labels)
        if not (root / self.val).is_dir():
            raise UserError(f"no such folder; {_LAYOUT}", where=str(root / self.val))
        if visible_folders(root / self.val, root)[0]:
            test, skipped_test = images_of_classes(root / self.val, root, labels)
        elif self.val_labels is None:
            raise UserError(
                "has no class folders; params.yaml: prepare.source.val_labels must name the file that says what its"
                " images show (LOC_val_solution.csv or ILSVRC2012_validation_ground_truth.txt)",
                where=str(root / self.val),
            )
        else:
            file = annotation_file(root, self.val_labels)
            test, skipped_test = _flat(root / self.val, root, labels, val_wnids(file), file)
        return Collection(names, {"train": train, "test": test}, tuple(sorted(skipped + skipped_test)))


def class_names(file: Path, wnids: Sequence[str]) -> tuple[str, ...]:
    """Return names by label from `<wnid> <name>` lines; classes of one name, such as the two cranes, keep their ids.

    Raises:
        UserError: a line is otherwise, or a class has no name.
    """
    name_of = {}
    for number, line in lines_of(file):
        wnid, _, name = line.partition(" ")
        if not _WNID.fullmatch(wnid) or not name.strip():
            raise UserError(f"expected `n01440764 tench, Tinca tinca`, got '{line}'", where=f"{file}:{number}")
        name_of[wnid] = name.strip()
    nameless = [wnid for wnid in wnids if wnid not in name_of]
    if nameless:
        raise UserError(f"has no name for {len(nameless)} of {len(wnids)} classes: {some(nameless)}", where=str(file))
    return distinct_names([name_of[wnid] for wnid in wnids], wnids)


def val_wnids(file: Path) -> dict[str, str]:
    """Return each validation image's class by its name without suffix, from Kaggle's file or the development kit's.

    Raises:
        UserError: the file is neither of the two, or damaged.
    """
    lines = lines_of(file)
    if lines and lines[0][1].startswith(f"{_KAGGLE[0]},"):
        # `ILSVRC2012_val_00048981,n03995372 85 1 499 272`: the class stands before each box.
        images, boxes = read_columns(file, _KAGGLE).values()
        for row, box in enumerate(boxes, start=1):
            if not _WNID.fullmatch(box.split()[0]):
                raise UserError(f"row {row} is no `image,n01440764 …`, got '{box[:60]}'", where=str(file))
        return {image: box.split()[0] for image, box in zip(images, boxes, strict=True)}
    meta = file.with_name("meta.mat")
    wnid_of = _synsets(meta)
    wnids = {}
    for place, (number, line) in enumerate(lines, start=1):
        if not line.isdecimal() or int(line) not in wnid_of:
            raise UserError(
                f"expected a class number of {meta} a line, or Kaggle's LOC_val_solution.csv, got '{line[:60]}'",
                where=f"{file}:{number}",
            )
        wnids[f"ILSVRC2012_val_{place:08d}"] = wnid_of[int(line)]
    return wnids


def _synsets(file: Path) -> dict[int, str]:
    """Return each class's WordNet id by its number, ILSVRC2012_ID."""
    if not file.is_file():
        raise UserError("no such file; the development kit has it beside the ground truth", where=str(file))
    from scipy.io import loadmat

    try:
        synsets = loadmat(file, squeeze_me=True)["synsets"]
        return {int(synset["ILSVRC2012_ID"]): str(synset["WNID"]) for synset in synsets}
    except Exception as error:  # noqa: BLE001 - on damaged files SciPy raises almost anything
        raise UserError(f"is not the development kit's ({one_line(error)})", where=str(file)) from None


def _wnids(folder: Path) -> tuple[str, ...]:
    if not folder.is_dir():
        raise UserError(f"no such folder; {_LAYOUT}", where=str(folder))
    names = sorted(each.name for each in visible_folders(folder, folder)[0])
    others = [repr(name) for name in names if not _WNID.fullmatch(name)]
    if others or not names:
        seen = f"{some(others)} are not" if others else "there are none"
        raise UserError(
            f"its folders must be WordNet ids such as n01440764, {seen}; {{kind: folder}} takes others",
            where=str(folder),
        )
    return tuple(names)


def _flat(
    folder: Path, root: Path, labels: Mapping[str, int], wnid_of: Mapping[str, str], file: Path
) -> tuple[ImageList, list[Skipped]]:
    """Return the images of a folder without class folders; those that `file` does not name are skipped.

    `wnid_of` holds what the file says: each image's class by its name without suffix.
    """
    images, skipped = images_below([(folder, 0)], root)
    pairs = []
    for path in images.paths:
        wnid = wnid_of.get(Path(path).stem)
        if wnid is None:
            skipped.append(Skipped(path, f"{file.name} does not say what it shows"))
        elif wnid in labels:
            pairs.append((path, labels[wnid]))
        else:
            raise UserError(f"says that {path} shows {wnid}, which train has no folder for", where=str(file))
    absent = sorted(wnid_of.keys() - {Path(path).stem for path in images.paths})
    if absent:
        console.warn(f"prepare: {len(absent)} images that {file} names are not in {folder}: {some(absent)}")
    return make_list(sorted(pairs, key=lambda pair: pair[::-1])), skipped
