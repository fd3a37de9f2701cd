"""Smaller copies of large originals for training crops, kept outside the pipeline's outputs and named by content.

A copy belongs to the bytes of its original and to the settings, so that none can stand for another image; one that is
missing is made when it is wanted. N images.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from PIL import Image
from pydantic import Field, ValidationError

from ltrec import console
from ltrec.data.images.decoding import decode_rgb, image_size
from ltrec.data.images.formats import UnreadableImageError, UnsupportedFormatError
from ltrec.data.images.repair import kept_truncated
from ltrec.errors import UserError, one_line
from ltrec.settings import PositiveInt, Settings

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

# Originals are copied only if their short side is this many times the copy's: else decoding is hardly faster.
_WORTH = 1.25
_NOT_COPIED = "-"


class CacheSettings(Settings):
    """Copies of training images that are much larger than what the network sees."""

    short_side: PositiveInt = 256
    """Short side of the copies, in pixels; originals with less than one and a quarter of it are used themselves."""
    format: Literal["jpeg", "raw"] = "jpeg"
    """Format of the copies; raw: the pixels, several times as large and faster to read."""
    quality: Annotated[int, Field(ge=1, le=100)] = 90
    """Quality of JPEG copies."""

    @property
    def key(self) -> str:
        """Return the name of the copies' folder."""
        # Copies by another decoder, which left the colours of a profile as they were, lie without the last word.
        return f"{self.short_side}-{'raw' if self.format == 'raw' else f'jpeg{self.quality}'}-srgb"


class Cache:
    """The copies that some settings ask for, in a folder of their own below `folder`."""

    def __init__(self, folder: Path, settings: CacheSettings) -> None:
        self.settings = settings
        self._folder = folder / settings.key

    def copy_of(self, digest: str) -> Path:
        """Return where the copy lies of the original whose bytes have this SHA-256."""
        return self._folder / digest[:2] / f"{digest}.{'npy' if self.settings.format == 'raw' else 'jpg'}"

    def pays(self, original: Path) -> bool:
        """Return whether an original is so large that its copy is read faster; the image is not decoded."""
        return min(image_size(original)) >= _WORTH * self.settings.short_side

    def fill(self, originals: Mapping[str, Path], *, workers: int | None, truncated: Collection[Path] = ()) -> None:
        """Make the missing copies of originals, given by the SHA-256 of their bytes, in `workers` threads.

        An interrupted filling goes on where it was. Of the originals in `truncated` the end may be missing.

        Raises:
            UserError: an original has other bytes now, or cannot be read.
        """
        missing = {digest: file for digest, file in originals.items() if not self.copy_of(digest).exists()}
        if not missing:
            return
        pool = ThreadPoolExecutor(workers)
        try:
            with console.progress(f"cache: copies of {self.settings.short_side} pixels", len(missing)) as advance:
                ends = [file in truncated for file in missing.values()]
                for _ in pool.map(self._make, missing, missing.values(), ends):
                    advance()
        finally:
            pool.shutdown(cancel_futures=True)

    def _make(self, digest: str, original: Path, truncated: bool) -> None:
        try:
            with original.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                    raise UserError("has changed since `prepare`; run `dvc repro`", where=str(original))
            image = decode_rgb(original, truncated=truncated)
        except UnsupportedFormatError as error:
            raise UserError(f"{error}; `prepare` could read it", where=str(original)) from None
        except (UnreadableImageError, OSError) as error:
            raise UserError(f"{one_line(error)}; has the data changed since `prepare`?", where=str(original)) from None
        scale = self.settings.short_side / min(image.size)
        copy = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
        content = io.BytesIO()
        if self.settings.format == "raw":
            np.save(content, np.asarray(copy))
        else:
            copy.save(content, "JPEG", quality=self.settings.quality)
        target = self.copy_of(digest)
        target.parent.mkdir(parents=True, exist_ok=True)
        # Nobody sees half a copy. Unlike `artifacts.replacing` this does not wait for the disk: the files are many.
        handle, name = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=target.parent)
        try:
            with open(handle, "wb") as file:  # noqa: PTH123 - of a descriptor
                file.write(content.getbuffer())
            os.replace(name, target)  # noqa: PTH105
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)  # noqa: PTH108


def cache_text(settings: CacheSettings | None, root: Path, paths: Sequence[str], digests: Mapping[str, bytes]) -> str:
    """Return the text by which `training_files` finds the copies: the settings, then a line an image.

    A line is the SHA-256 of the original's bytes, or a hyphen where a copy would not pay. Without a cache the text is
    empty.
    """
    if settings is None:
        return ""
    cache = Cache(Path(), settings)
    lines = [digests[path].hex() if cache.pays(root / path) else _NOT_COPIED for path in paths]
    return "\n".join([settings.model_dump_json(), *lines]) + "\n"


def training_files(
    file: Path,
    root: Path,
    paths: Sequence[str],
    *,
    folder: Path,
    workers: int | None = None,
    share: tuple[int, int] = (0, 1),
) -> Sequence[str]:
    """Return the files that training images are read from, (N,); copies that are missing are made.

    Originals are paths relative to `root`, copies absolute ones.

    Args:
        file: The file in which `prepare` wrote `cache_text`.
        root: The folder that the paths are relative to.
        paths: The list's paths, (N,).
        folder: The folder of all copies.
        workers: The number of threads that make copies; None: somewhat more than cores.
        share: Which of how many processes this is, where each makes its part of the copies.

    Raises:
        UserError: the file belongs to another list, or an original has changed.
    """
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    if not text:
        return paths
    first, *lines = text.splitlines()
    try:
        settings = CacheSettings.model_validate_json(first)
    except ValidationError as error:
        raise UserError(f"names no cache: {one_line(error)}; run `ltrec prepare`", where=str(file)) from None
    if len(lines) != len(paths):
        raise UserError(f"has {len(lines):,} images, the list {len(paths):,}; run `ltrec prepare`", where=str(file))
    cache = Cache(folder.resolve(), settings)
    copied = {digest: root / path for digest, path in zip(lines, paths, strict=True) if digest != _NOT_COPIED}
    truncated = {root / path for path in kept_truncated(file.with_name("stats.json"))}
    cache.fill(dict(islice(copied.items(), share[0], None, share[1])), workers=workers, truncated=truncated)
    return [
        path if digest == _NOT_COPIED else str(cache.copy_of(digest)) for digest, path in zip(lines, paths, strict=True)
    ]
