"""Reading what is there of files that Pillow refuses as a whole: PNG files with much text, and truncated ones."""

from __future__ import annotations

import io
import struct
from typing import TYPE_CHECKING, Any

from PIL import Image
from PIL.PngImagePlugin import PngStream

from ltrec import artifacts
from ltrec.data.images.formats import IMAGE_FORMATS, MOST_FILE, UnreadableImageError, unreadable
from ltrec.data.images.formats import TruncatedImageError as Truncated

if TYPE_CHECKING:
    from pathlib import Path

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG, _END_OF_JPEG = b"\xff\xd8\xff", b"\xff\xd9"
# The chunks that Pillow unpacks beside the pixels.
_TEXTS = frozenset({b"tEXt", b"zTXt", b"iTXt", b"iCCP"})
_GREYED = frozenset({"L", "RGB", "RGBA"})


def is_of_text(error: Exception, file: Path) -> bool:
    """Return whether a PNG file is refused for its text or its profile, and not for its pixels."""
    if "MAX_TEXT" not in str(error):  # the names of Pillow's two limits begin so
        return False
    with file.open("rb") as opened:
        return opened.read(len(_PNG)) == _PNG


def open_without_text(file: Path) -> Image.Image:
    """Return a PNG image, open and not yet decoded, without the text that Pillow refuses to unpack.

    Raises:
        UnreadableImageError: what else is in the file is more than is read into memory.
    """
    kept = io.BytesIO()
    with file.open("rb") as opened:
        kept.write(opened.read(len(_PNG)))
        chunks = PngStream(opened)
        while len(header := opened.read(8)) == 8:
            length, kind = struct.unpack(">I4s", header)
            start = opened.tell()
            if kind not in _TEXTS or _is_unpacked(chunks, kind, start, length):
                opened.seek(start)
                if kept.tell() + length > MOST_FILE:
                    raise UnreadableImageError(
                        f"a PNG file with much text, and more than {MOST_FILE >> 20} MiB of pixels"
                    )
                kept.write(header + opened.read(length + 4))
            opened.seek(start + length + 4)
    kept.seek(0)
    return Image.open(kept, formats=["PNG"])


def _is_unpacked(chunks: PngStream, kind: bytes, start: int, length: int) -> bool:
    """Return whether Pillow unpacks a chunk of text; what it has refused once it would refuse again."""
    try:
        chunks.call(kind, start, length)
    except Exception:  # noqa: BLE001 - whatever is wrong with the text, the pixels stand without
        return False
    return True


def open_truncated(file: Path) -> Image.Image:
    """Return a truncated image, open and not yet decoded, as far as it goes; a JPEG gets the mark of an end.

    Raises:
        UnreadableImageError: a JPEG of more bytes than are read into memory.
    """
    with file.open("rb") as opened:
        if opened.read(len(_JPEG)) != _JPEG:
            return Image.open(file, formats=IMAGE_FORMATS)
        opened.seek(0)
        content = opened.read(MOST_FILE + 1)
    if len(content) > MOST_FILE:
        raise UnreadableImageError(f"truncated, and more than {MOST_FILE >> 20} MiB")
    return Image.open(io.BytesIO(content + _END_OF_JPEG), formats=["JPEG"])


def load_truncated(opened: Any, file: Path) -> None:
    """Decode what is there of an open image; the rest is grey, and black or clear where pixels are no colours.

    Raises:
        TruncatedImageError: nothing is there, or the format gives no part of an image.
    """
    if opened.mode in _GREYED:
        opened.im = Image.new(opened.mode, opened.size, "grey").im
    try:
        opened.load()
    except Exception as error:
        if not isinstance(unreadable(error, file), Truncated):
            raise
        opened.tile = []  # what has been decoded until here is the image
    if all(low == high for low, high in _extremes(opened)):
        raise Truncated("truncated")


def _extremes(image: Image.Image) -> tuple[tuple[float, float], ...]:
    """Return the least and the greatest value of each channel."""
    extremes: Any = image.getextrema()
    return extremes if isinstance(extremes[0], tuple) else (extremes,)


def kept_truncated(stats: Path) -> frozenset[str]:
    """Return the paths of the truncated images that `prepare` kept and listed in `stats.json`; no file, no images."""
    return frozenset(artifacts.read_json(stats).get("truncated", ())) if stats.is_file() else frozenset()
