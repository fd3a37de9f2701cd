"""The seal of an exported file: the digest of all that stands before it, by which an altered file is noticed.

An ONNX file is one protobuf message, and bytes appended to a message belong to it. The seal is such bytes: one more
entry of the metadata. So it is written and checked without the onnx package, which serving does not need.
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, BinaryIO

from ltrec.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

KEY = "ltrec.sha256"
"""The name of the entry in the file's metadata."""

_DIGITS = 64
_BLOCK = 2**20
# Protobuf writes a field as its number and kind in one byte, then its length, then its content.
_KEY_FIELD, _VALUE_FIELD, _METADATA_FIELD = b"\x0a", b"\x12", b"\x72"


def sealed(content: bytes) -> bytes:
    """Return the content of an ONNX file with its seal."""
    return content + _seal(hashlib.sha256(content).hexdigest())


def require_intact(path: Path) -> bool:
    """Return whether a file ends with a seal; older files and those of others have none.

    Raises:
        UserError: The seal is not that of the file's content.
    """
    length = len(_seal("0" * _DIGITS))
    with path.open("rb") as file:
        before = max(0, os.fstat(file.fileno()).st_size - length)
        digest = _digest(file, before)
        found = file.read(length)
    if KEY.encode() not in found:
        return False
    if found != _seal(digest):
        raise altered(path)
    return True


def altered(path: Path) -> UserError:
    """Return the error of a file that is not as it was exported."""
    return UserError(
        "was altered after `ltrec export` wrote it: its digest is not that of its content; `ltrec export --onnx`"
        " writes it anew",
        where=str(path),
    )


def _digest(file: BinaryIO, length: int) -> str:
    digest = hashlib.sha256()
    while length > 0 and (block := file.read(min(length, _BLOCK))):
        digest.update(block)
        length -= len(block)
    return digest.hexdigest()


def _seal(digest: str) -> bytes:
    entry = _field(_KEY_FIELD, KEY.encode()) + _field(_VALUE_FIELD, digest.encode())
    return _field(_METADATA_FIELD, entry)


def _field(number: bytes, content: bytes) -> bytes:
    assert len(content) < 128, "a length of one byte"
    return number + bytes([len(content)]) + content
