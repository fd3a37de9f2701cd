"""Writing the published CIFAR archives as image folders, lossless; torchvision downloads and checks them."""

from __future__ import annotations

import itertools
import socket
import tempfile
import urllib.error
import warnings
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltrec import console
from ltrec.data.downloads.writing import check_other_data, write_images
from ltrec.data.sources.cifar import CIFAR10, CIFAR100, Cifar, scan_cifar
from ltrec.errors import UserError, one_line

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Images = dict[str, NDArray[np.uint8]]

_TIMEOUT = 30.0  # seconds without an answer


def write_cifar10(root: Path) -> None:
    """Write CIFAR-10 as `root/{train,test}/<class>/<n>.png`; n is the image's place among those of its class.

    The archive, or the folder of batches, is taken from `root` if it lies there, and downloaded otherwise; either
    way torchvision compares checksums. Nothing is downloaded where all images are there already.

    Raises:
        UserError: `root` holds something else, the archive is damaged, or the download fails.
    """
    from torchvision import datasets

    _write_cifar(root, CIFAR10, datasets.CIFAR10)


def write_cifar100(root: Path) -> None:
    """Write CIFAR-100 as `write_cifar10` does CIFAR-10, with its hundred fine labels.

    Raises:
        UserError: as in `write_cifar10`.
    """
    from torchvision import datasets

    _write_cifar(root, CIFAR100, datasets.CIFAR100)


def _write_cifar(root: Path, cifar: Cifar, published: Any) -> None:
    root = root.resolve()
    in_place = [name for name in cifar.published if (root / name).exists()]
    if not in_place and _is_complete(root, cifar):
        console.say(f"data: {root} holds all images of {cifar.name} already")
        return
    # Names are looked at before 170 MB are downloaded, the folders' content afterwards.
    check_other_data(root, {*cifar.per_class, *cifar.published})
    home = root if root.is_dir() else root.parent
    home.mkdir(parents=True, exist_ok=True)
    # Beside the images, where there is room for them; hidden, so that nobody takes it for data.
    with tempfile.TemporaryDirectory(prefix=f".{cifar.command}.", suffix=".tmp", dir=home) as scratch:
        if (root / published.base_folder).is_dir():
            images = _read(root, cifar, published)
        elif (root / published.filename).is_file():
            _extract(root / published.filename, Path(scratch), published.tgz_md5)
            images = _read(Path(scratch), cifar, published)
        else:
            _download(Path(scratch), published)
            images = _read(Path(scratch), cifar, published)
    write_images(root, images, f"images of {cifar.name}", beside=cifar.published)


def _is_complete(root: Path, cifar: Cifar) -> bool:
    try:
        scan_cifar(root, cifar)
    except UserError:
        return False
    return True


def _extract(archive: Path, target: Path, md5: str) -> None:
    from torchvision.datasets.utils import check_integrity, extract_archive

    if not check_integrity(archive, md5):
        raise UserError(
            f"is damaged: its MD5 sum is not the published {md5}; remove it, and it is downloaded anew",
            where=str(archive),
        )
    extract_archive(archive, target)


def _download(folder: Path, published: Any) -> None:
    earlier_timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT)
    try:
        published(folder, download=True)
    except RuntimeError as error:
        raise UserError(
            f"came damaged: its checksum is not the published one ({one_line(error)}); try again", where=published.url
        ) from None
    except (urllib.error.URLError, HTTPException, ConnectionError, TimeoutError) as error:
        raise UserError(
            f"cannot be downloaded ({one_line(error)}); try again, or put {published.filename} into the folder"
            " yourself",
            where=published.url,
        ) from None
    finally:
        socket.setdefaulttimeout(earlier_timeout)


def _read(folder: Path, cifar: Cifar, published: Any) -> Images:
    """Return the images of a folder of batches by relative path, (32, 32, 3)."""
    images: Images = {}
    for split in cifar.per_class:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # NumPy's, about the age of the published files
                part = published(folder, train=split == "train")
        except RuntimeError:
            raise UserError(
                f"lacks a file, or holds one whose MD5 sum is not the published one; remove the folder, and"
                f" {cifar.name} is downloaded anew",
                where=str(folder / published.base_folder),
            ) from None
        assert tuple(part.classes) == cifar.classes
        numbers = [itertools.count() for _ in cifar.classes]
        for pixels, label in zip(part.data, part.targets, strict=True):
            images[f"{split}/{cifar.classes[label]}/{next(numbers[label]):04d}.png"] = pixels
    return images
