"""Sample data without a download: scikit-learn's handwritten digits as an image folder."""

from __future__ import annotations

import os
import shutil
import struct
import zlib
from typing import TYPE_CHECKING

from ltrec import console
from ltrec.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

_INK = 16  # the darkest value of a digit's pixel


def write_digits(root: Path) -> None:
    """Write the 1,797 8 × 8 scans of the UCI digits test set as `root/<class>/<n>.png`.

    n is the image's place in scikit-learn's set. The bytes are the same on every machine. What is there already
    stays: identical files are fine, missing ones are added.

    Raises:
        UserError: `root` holds something else; nothing is written then.
    """
    # `root` may be a link to another disk; what is renamed must lie on the same one.
    root = root.resolve()
    digits = _digits()
    if not root.exists():
        staging = root.with_name(f".{root.name}.{os.getpid()}.tmp")
        try:
            _write(staging, digits)
            staging.rename(root)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        console.say(f"data: {len(digits)} handwritten digits in 10 classes → {root}")
        return
    missing = _missing(root, digits)
    # A folder that exists may be a mounted volume, which cannot be replaced: it is filled file by file.
    staging = root / f".digits.{os.getpid()}.tmp"
    try:
        _write(staging, missing)
        for path in missing:
            (root / path).parent.mkdir(exist_ok=True)
            (staging / path).replace(root / path)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    console.say(f"data: {len(missing)} handwritten digits added, {len(digits) - len(missing)} there already → {root}")


def _digits() -> dict[str, bytes]:
    """File contents by relative path."""
    from sklearn.datasets import load_digits

    bundle = load_digits()
    return {
        f"{label}/{number:04d}.png": _png((pixels.astype("int64") * 255 + _INK // 2) // _INK)
        for number, (pixels, label) in enumerate(zip(bundle.images, bundle.target, strict=True))
    }


def _missing(root: Path, digits: dict[str, bytes]) -> dict[str, bytes]:
    """The digits that are not in `root` yet; anything else in it that shows is refused."""
    if not root.is_dir():
        raise UserError("is a file; the digits would be a folder", where=str(root))
    present = set()
    folders = {path[: path.index("/") + 1] for path in digits}
    for file in sorted(root.rglob("*")):
        path = file.relative_to(root).as_posix()
        if any(part.startswith(".") for part in path.split("/")) or (file.is_dir() and f"{path}/" in folders):
            continue
        if not file.is_file() or path not in digits or file.read_bytes() != digits[path]:
            raise UserError(
                f"holds other data ('{path}'), which stays as it is; move it away or name another folder",
                where=str(root),
            )
        present.add(path)
    return {path: content for path, content in digits.items() if path not in present}


def _write(folder: Path, files: dict[str, bytes]) -> None:
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)


def _png(pixels: NDArray[np.int64]) -> bytes:
    """An 8-bit grayscale PNG, (H, W) of 0 … 255, as one stored deflate block.

    Written by hand, because compressed bytes differ between builds of zlib.
    """
    height, width = pixels.shape
    rows = b"".join(b"\0" + bytes(row) for row in pixels.tolist())  # filter 0: none
    stored = struct.pack("<BHH", 1, len(rows), len(rows) ^ 0xFFFF) + rows
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0),
        b"IDAT": b"\x78\x01" + stored + struct.pack(">I", zlib.adler32(rows)),
        b"IEND": b"",
    }
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks.items()
    )
