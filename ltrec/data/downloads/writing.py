"""Writing arrays as image files: all or none, the same bytes on every machine, and nobody's files overwritten."""

from __future__ import annotations

import os
import shutil
import struct
import zlib
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from ltrec import console
from ltrec.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    Images = Mapping[str, NDArray[np.uint8]]

_LARGEST_BLOCK = 0xFFFF  # bytes that a stored deflate block can hold


def write_images(root: Path, images: Images, what: str, *, beside: Collection[str] = ()) -> None:
    """Write arrays as PNG files below `root`.

    What is there already stays: identical files are fine, missing ones are added.

    Args:
        root: The folder.
        images: Arrays by relative path: (H, W) gray or (H, W, 3) RGB.
        what: The plural that a message calls them, such as `handwritten digits`.
        beside: Names that may stand in `root` as well.

    Raises:
        UserError: `root` holds something else; nothing is written then.
    """
    # `root` may be a link to another disk; what is renamed must lie on the same one.
    root = root.resolve()
    if not root.exists():
        staging = root.with_name(f".{root.name}.{os.getpid()}.tmp")
        try:
            _write(staging, images)
            staging.rename(root)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        console.say(f"data: {len(images):,} {what} → {root}")
        return
    missing = _missing(root, images, beside)
    # A folder that exists may be a mounted volume, which cannot be replaced: it is filled file by file.
    staging = root / f".images.{os.getpid()}.tmp"
    try:
        _write(staging, {path: images[path] for path in missing})
        for path in missing:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (staging / path).replace(root / path)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    console.say(f"data: {len(missing):,} {what} added, {len(images) - len(missing):,} there already → {root}")


def check_other_data(root: Path, expected: Collection[str]) -> None:
    """Refuse a folder that holds something else than the expected names and hidden files.

    Raises:
        UserError: `root` is a file, or such a folder.
    """
    if root.exists() and not root.is_dir():
        raise UserError("is a file; the images would be a folder", where=str(root))
    for entry in sorted(root.iterdir()) if root.is_dir() else ():
        if not entry.name.startswith(".") and entry.name not in expected:
            raise _other_data(root, entry.name)


def png(pixels: NDArray[np.uint8]) -> bytes:
    """Return an 8-bit PNG of (H, W) gray or (H, W, 3) RGB, as one stored deflate block of at most 64 KiB.

    It is written by hand, because compressed bytes differ between builds of zlib.
    """
    height, width = pixels.shape[:2]
    lines = pixels.reshape(height, -1)
    rows = np.pad(lines, ((0, 0), (1, 0))).tobytes()  # filter 0: none
    assert len(rows) <= _LARGEST_BLOCK
    stored = struct.pack("<BHH", 1, len(rows), len(rows) ^ _LARGEST_BLOCK) + rows
    color = {2: 0, 3: 2}[pixels.ndim]
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, 8, color, 0, 0, 0),
        b"IDAT": b"\x78\x01" + stored + struct.pack(">I", zlib.adler32(rows)),
        b"IEND": b"",
    }
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks.items()
    )


def _missing(root: Path, images: Images, beside: Collection[str]) -> list[str]:
    """Return the images that are not in `root` yet; anything else in it that is not hidden is refused."""
    present = set()
    folders = _folders(images)
    check_other_data(root, {*beside, *(path.partition("/")[0] for path in images)})
    for file in sorted(root.rglob("*")):
        path = file.relative_to(root).as_posix()
        parts = path.split("/")
        if parts[0] in beside or any(part.startswith(".") for part in parts) or (file.is_dir() and path in folders):
            continue
        if not file.is_file() or path not in images or file.read_bytes() != png(images[path]):
            raise _other_data(root, path)
        present.add(path)
    return [path for path in images if path not in present]


def _other_data(root: Path, path: str) -> UserError:
    return UserError(
        f"holds other data ('{path}'), which stays as it is; move it away or name another folder", where=str(root)
    )


def _folders(paths: Iterable[str]) -> set[str]:
    return {str(folder) for path in paths for folder in PurePosixPath(path).parents}


def _write(folder: Path, images: Images) -> None:
    for at in _folders(images):
        (folder / at).mkdir(parents=True, exist_ok=True)
    for path, pixels in images.items():
        (folder / path).write_bytes(png(pixels))
