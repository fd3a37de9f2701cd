"""What a sender and the stages tell each other: a few numbers in a small file, and one line of text."""

from __future__ import annotations

import contextlib
import os
import struct
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pathlib import Path

Field = Literal["asked", "insisted", "answered", "beat", "due", "quiet_until"]
_FIELDS: tuple[Field, ...] = ("asked", "insisted", "answered", "beat", "due", "quiet_until")
_NUMBER = struct.Struct("d")


class Board:
    """Shared by processes; the times are those of the machine's monotonic clock, 0 is never.

    - `asked`: when a stage last asked for everything to be sent.
    - `insisted`: when somebody last asked who does not want to hear of earlier trouble.
    - `answered`: what was asked before has been done, with or without trouble.
    - `beat`: when the sender last showed that it lives.
    - `due`: when the store's next answer is due; 0 while the sender waits for none.
    - `quiet_until`: until when stages do not wait, since the store did not answer.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._numbers, self._reason = folder / "board", folder / "reason.txt"
        # Numbers are overwritten in place, which a full disk allows.
        with self._numbers.open("ab") as file:
            file.write(bytes(max(0, len(_FIELDS) * _NUMBER.size - file.tell())))

    def get(self, name: Field) -> float:
        # Empty while a sender that ends removes the folder and another one makes it anew.
        with contextlib.suppress(OSError, struct.error), self._numbers.open("rb", buffering=0) as file:
            return float(_NUMBER.unpack(os.pread(file.fileno(), _NUMBER.size, _offset(name)))[0])
        return 0.0  # a sender that ends removes it

    def set(self, name: Field, value: float) -> None:
        with contextlib.suppress(OSError), self._numbers.open("r+b", buffering=0) as file:
            os.pwrite(file.fileno(), _NUMBER.pack(value), _offset(name))

    def clear(self) -> None:
        for name in _FIELDS:
            self.set(name, 0.0)

    def trouble(self) -> str:
        """Return what went wrong last, or nothing if all went well."""
        with contextlib.suppress(OSError):
            return self._reason.read_text(encoding="utf-8")
        return ""

    def set_trouble(self, trouble: str) -> None:
        with contextlib.suppress(OSError):
            self._reason.write_text(trouble, encoding="utf-8")


def _offset(name: Field) -> int:
    return _FIELDS.index(name) * _NUMBER.size
