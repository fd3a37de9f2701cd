"""The formats of image files: which are read, and what the others are called that people take photographs in.

Files may be hostile: nothing but a regular file is opened, and by its first bytes it goes to one of a list of decoders.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, NamedTuple

from PIL import Image, TiffImagePlugin, UnidentifiedImageError, features

from ltrec.artifacts import irregular

if TYPE_CHECKING:
    from pathlib import Path

IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF", "JPEG2000")
"""The formats that are always read, whatever a file is called, by Pillow's names; MPO is a JPEG. Pillow knows forty
more, some of which start other programs (EPS: Ghostscript), and none of which holds photographs. HEIC is read where
pillow-heif is installed."""

MOST_FILE = 256 << 20
"""Bytes of a file that may be read into memory before anything is known of its pixels."""

_LONGEST_REASON = 200
_BEGINNING = 64

_AVIF = frozenset({b"avif", b"avis"})
_HEVC = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"})
_ANY_CODEC = frozenset({b"mif1", b"msf1"})
_VIDEO = frozenset(
    {b"qt  ", b"isom", b"iso2", b"iso4", b"iso5", b"iso6", b"mp41", b"mp42", b"avc1", b"M4V ", b"3gp4", b"3gp5"}
)
# What raw photographs begin with, where it is no TIFF: (the place of the sign, the sign, what the format is called).
_RAW_SIGNS = (
    (0, b"FUJIFILMCCD-RAW", "RAF"), (0, b"IIRO", "ORF"), (0, b"IIRS", "ORF"), (0, b"MMOR", "ORF"), (0, b"IIU\0", "RW2"),
    (0, b"FOVb", "X3F"), (0, b"\0MRM", "MRW"), (6, b"HEAPCCDR", "CRW"), (4, b"ftypcrx ", "CR3"), (8, b"CR\2", "CR2"),
)  # fmt: skip
# What raw photographs are called that are TIFF files by their first bytes.
_RAW_SUFFIXES = frozenset({
    ".cr2", ".nef", ".nrw", ".dng", ".arw", ".sr2", ".srf", ".srw", ".pef", ".3fr", ".fff", ".iiq", ".erf", ".kdc",
    ".dcr", ".mef", ".mos", ".rwl", ".gpr",
})  # fmt: skip
_TIFF = (b"II*\0", b"MM\0*")
_JPEG_XL = (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")


class UnreadableImageError(Exception):
    """A file that is no image, or a damaged one; the message says why."""


class TruncatedImageError(UnreadableImageError):
    """An image whose end is missing."""


class UnsupportedFormatError(UnreadableImageError):
    """A photograph of a kind that is not read here; the message names the kind and the remedy, and not the file."""


class _Kind(NamedTuple):
    """What a file is that goes to none of the decoders of `IMAGE_FORMATS`."""

    name: str
    remedy: str


_HEIC_KIND = _Kind("HEIC photographs", "pip install ltrec[heic], or convert them to JPEG")
_AVIF_KIND = _Kind("AVIF photographs", "install a Pillow that reads AVIF, or convert them to JPEG")
_JPEG_XL_KIND = _Kind("JPEG XL photographs", "convert them to JPEG")
_VIDEO_KIND = _Kind("videos", "save single frames as JPEG")


def open_image(file: Path) -> Image.Image:
    """Return an image that is open and not yet decoded, by one of `IMAGE_FORMATS`, or by pillow-heif.

    Raises:
        UnreadableImageError: it is no regular file, which might be waited for in vain, or of a kind that is not read.
        OSError: the file cannot be read, or is of none of the formats.
    """
    if what := irregular(file):
        raise UnreadableImageError(f"is {what}, not a file")
    kind = _kind(file)
    if kind is None:
        return Image.open(file, formats=IMAGE_FORMATS)
    if kind is not _HEIC_KIND or not _reads_heic():
        raise UnsupportedFormatError(f"{kind.name}: {kind.remedy}")
    if file.stat().st_size > MOST_FILE:
        raise UnreadableImageError(f"a HEIC file of more than {MOST_FILE >> 20} MiB")
    try:
        return Image.open(file, formats=["HEIF"])
    except UnidentifiedImageError:
        raise UnreadableImageError("damaged (it begins as a HEIC photograph)") from None


def unreadable(error: Exception, file: Path) -> UnreadableImageError:
    """Return the error that says why a file cannot be decoded, without its path."""
    if isinstance(error, UnreadableImageError):
        return error
    text = str(error).partition("\n")[0][:_LONGEST_REASON]
    if isinstance(error, Image.DecompressionBombError):
        return UnreadableImageError(f"more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels")
    if isinstance(error, UnidentifiedImageError):
        return UnreadableImageError("not an image" if file.stat().st_size else "an empty file")
    if isinstance(error, OSError) and error.errno is not None:
        return UnreadableImageError(f"cannot be read ({error.strerror})")
    if "truncated" in text.lower() or isinstance(error, EOFError):
        return TruncatedImageError("truncated")
    return UnreadableImageError(f"damaged ({text or type(error).__name__})")


@functools.cache
def _reads_heic() -> bool:
    """Return whether pillow-heif is installed; Pillow is then told of it."""
    try:
        import pillow_heif

        # Neither thumbnails nor depth maps stand for the photograph; files are decoded side by side already.
        pillow_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=1)
    except ImportError:
        return False
    return True


def _kind(file: Path) -> _Kind | None:
    """Return what a file is by its first bytes, and for a TIFF by its name or tags; None: Pillow may try its own."""
    with file.open("rb") as opened:
        beginning = opened.read(_BEGINNING)
    for place, sign, name in _RAW_SIGNS:
        if beginning[place:].startswith(sign):
            return _raw(name)
    if beginning.startswith(_TIFF):
        return _raw_tiff(file, beginning)
    if beginning.startswith(_JPEG_XL):
        return _JPEG_XL_KIND
    return _container(beginning) if beginning[4:8] == b"ftyp" else None


def _container(beginning: bytes) -> _Kind | None:
    """Return what lies in the container of HEIC, AVIF and videos: its brands say it."""
    end = min(int.from_bytes(beginning[:4], "big"), len(beginning))
    brand, others = beginning[8:12], {beginning[at : at + 4] for at in range(16, end, 4)}
    if brand in _AVIF or (brand in _ANY_CODEC and others & _AVIF and not others & _HEVC):
        return None if features.check("avif") else _AVIF_KIND
    if brand in _HEVC | _ANY_CODEC:
        return _HEIC_KIND
    return _VIDEO_KIND if brand in _VIDEO else None


def _raw(name: str) -> _Kind:
    return _Kind(f"RAW photographs ({name})", "develop them to JPEG")


def _raw_tiff(file: Path, beginning: bytes) -> _Kind | None:
    """Return the kind of raw photograph that a TIFF file is, None if it is an ordinary one.

    Pillow would decode the thumbnail in front as if it were the photograph. By its tags a raw photograph has a DNG
    version, or the colours of the sensor, or begins with a smaller copy of an image that lies in a directory below.
    """
    if file.suffix.lower() in _RAW_SUFFIXES:
        return _raw(file.suffix[1:].upper())
    try:
        tags = TiffImagePlugin.ImageFileDirectory_v2(beginning[:8])
        with file.open("rb") as opened:
            opened.seek(tags.next or 0)
            tags.load(opened)
        if 50706 in tags:
            return _raw("DNG")
        is_raw = tags.get(262) in {32803, 34892} or (tags.get(254) == 1 and 330 in tags)
    except Exception:  # noqa: BLE001 - of a damaged one Pillow says what it is
        return None
    return _raw("a TIFF file of a camera") if is_raw else None
