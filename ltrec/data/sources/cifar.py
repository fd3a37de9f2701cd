"""CIFAR-10 and CIFAR-100 as image folders: `root/train/<class>/*` and `root/test/<class>/*`.

Krizhevsky (2009): 50,000 training and 10,000 test images of 32 × 32 pixels, as many of each class. The long-tailed
versions are cuts of train: `prepare.long_tail` with the exponential profile and n_max 5000 or 500.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ltrec.data.sources.collection import Collection, Skipped
from ltrec.data.sources.scanning import entries, images_of_classes, visible_folders
from ltrec.errors import UserError, some
from ltrec.settings import Settings, Text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ltrec.artifacts import Split
    from ltrec.data.image_lists import ImageList


@dataclass(frozen=True)
class Cifar:
    """What a CIFAR data set holds."""

    name: str
    command: str
    """The command of `ltrec data` that writes it."""
    classes: tuple[str, ...]
    """The class names in the order of the official labels."""
    per_class: Mapping[Split, int]
    """Images that each class has in each split."""
    published: tuple[str, ...]
    """Names of the published archive and folder, which may stand beside train and test."""


_FINE_LABELS = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin
elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster
man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck
pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk
skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger
tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""

CIFAR10 = Cifar(
    "CIFAR-10",
    "cifar10",
    ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    {"train": 5000, "test": 1000},
    ("cifar-10-python.tar.gz", "cifar-10-batches-py"),
)
CIFAR100 = Cifar(
    "CIFAR-100",
    "cifar100",
    tuple(_FINE_LABELS.split()),
    {"train": 500, "test": 100},
    ("cifar-100-python.tar.gz", "cifar-100-python"),
)


class Cifar10Source(Settings):
    """CIFAR-10 as `root/train/<class>/*` and `root/test/<class>/*`; `ltrec data cifar10` writes it so."""

    kind: Literal["cifar10"]
    root: Text = "data"
    """The folder that train and test lie in."""

    def scan(self) -> Collection:
        return scan_cifar(Path(self.root), CIFAR10)


class Cifar100Source(Settings):
    """CIFAR-100 as `root/train/<class>/*` and `root/test/<class>/*`; `ltrec data cifar100` writes it so."""

    kind: Literal["cifar100"]
    root: Text = "data"
    """The folder that train and test lie in."""

    def scan(self) -> Collection:
        return scan_cifar(Path(self.root), CIFAR100)


def scan_cifar(root: Path, cifar: Cifar) -> Collection:
    """Return the images with the official labels. There is no val.

    Raises:
        UserError: there is no such folder, or it has other class folders than the official ones, or another number of
            images in one.
    """
    hint = f"`ltrec data {cifar.command} --root {root}` writes {cifar.name} there"
    if not root.is_dir():
        raise UserError(f"{'is a file, not a folder' if root.exists() else 'no such folder'}; {hint}", where=str(root))
    labels = {name: label for label, name in enumerate(cifar.classes)}
    expected = {*cifar.per_class, *cifar.published}
    skipped = [Skipped(entry.name, f"no part of {cifar.name}") for entry in entries(root) if entry.name not in expected]
    splits: dict[Split, ImageList] = {}
    for split in cifar.per_class:
        folder = root / split
        if not folder.is_dir():
            raise UserError(
                f"no such folder; {cifar.name} is {' and '.join(f'{part}/<class>/*' for part in cifar.per_class)}"
                f" below {root}: {hint}",
                where=str(folder),
            )
        _check_classes(folder, {each.name for each in visible_folders(folder, root)[0]}, cifar)
        splits[split], unusable = images_of_classes(folder, root, labels)
        _check_counts(folder, splits[split], cifar.per_class[split], cifar)
        skipped += unusable
    return Collection(cifar.classes, splits, tuple(sorted(skipped)))


def _check_classes(folder: Path, names: set[str], cifar: Cifar) -> None:
    official = set(cifar.classes)
    wrong = [
        f"{what} {some(sorted(map(repr, differing)))}"
        for what, differing in (("missing are", official - names), ("unknown are", names - official))
        if differing
    ]
    if wrong:
        raise UserError(
            f"expected the {len(cifar.classes)} class folders of {cifar.name}, {cifar.classes[0]} …"
            f" {cifar.classes[-1]}; {', '.join(wrong)}",
            where=str(folder),
        )


def _check_counts(folder: Path, images: ImageList, per_class: int, cifar: Cifar) -> None:
    counts = images.counts(len(cifar.classes)).tolist()
    wrong = [f"'{name}' ({count:,})" for name, count in zip(cifar.classes, counts, strict=True) if count != per_class]
    if wrong:
        raise UserError(
            f"expected {per_class:,} images in each class folder of {cifar.name}, but it is otherwise in {some(wrong)}",
            where=str(folder),
        )
