"""Pickles of arrays, such as the research code's feature dumps, read without running what is in them."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

from ltrec.artifacts import present
from ltrec.models.checkpoints import numpy_stand_ins, refusal, refuse_bombs

if TYPE_CHECKING:
    from pathlib import Path
    from typing import BinaryIO


def read_pickle(path: Path) -> object:
    """Read what `pickle.dump` wrote: arrays, numbers, text, lists and dicts; arrays as `read_checkpoint` has them.

    Raises:
        UserError: The file is missing or damaged, or has anything else in it.
    """
    with present(path).open("rb") as file:
        try:
            refuse_bombs(path)
            return _Unpickler(file, path.stat().st_size).load()
        except Exception as error:  # noqa: BLE001 - out of a damaged pickle comes almost anything
            raise refusal(error, path, "a pickle", "NumPy arrays") from None


class _Unpickler(pickle._Unpickler):  # noqa: SLF001 - see below
    """Knows what puts arrays together, and nothing else.

    In Python: its memo is a dict, that of the fast one an array as long as ten bytes of a pickle may ask for.
    """

    def __init__(self, file: BinaryIO, size: int) -> None:
        super().__init__(file, encoding="latin1")
        self._known = {"_codecs.encode": _encode, **numpy_stand_ins(size)}

    def find_class(self, module: str, name: str, /) -> Any:
        if f"{module}.{name}" not in self._known:
            raise pickle.UnpicklingError(f"GLOBAL {module}.{name}")
        return self._known[f"{module}.{name}"]


def _encode(text: str, encoding: str) -> bytes:
    """Return the bytes that pickles before protocol 3 hold as text."""
    if encoding not in {"latin1", "latin-1"}:
        raise pickle.UnpicklingError(f"text to be encoded as {encoding!r}")
    return text.encode("latin1")
