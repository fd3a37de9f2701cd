"""Pickles of arrays, such as the research code's feature dumps, read without running what is in them."""

from __future__ import annotations

import codecs
import pickle
from typing import TYPE_CHECKING, Any

from ltrec.artifacts import present
from ltrec.models.checkpoints import numpy_stand_ins, refusal

if TYPE_CHECKING:
    from pathlib import Path


def read_pickle(path: Path) -> object:
    """Read what `pickle.dump` wrote: arrays, numbers, text, lists and dicts; arrays as `read_checkpoint` has them.

    Raises:
        UserError: The file is missing or damaged, or has anything else in it.
    """
    with present(path).open("rb") as file:
        try:
            return _Unpickler(file, encoding="latin1").load()
        except Exception as error:  # noqa: BLE001 - out of a damaged pickle comes almost anything
            raise refusal(error, path, "a pickle", "NumPy arrays") from None


class _Unpickler(pickle._Unpickler):  # noqa: SLF001 - see below
    """Knows what puts arrays together, and nothing else.

    In Python: its memo is a dict, that of the fast one an array as long as ten bytes of a pickle may ask for.
    """

    def find_class(self, module: str, name: str, /) -> Any:
        known = {"_codecs.encode": codecs.encode, **numpy_stand_ins()}  # pickles before protocol 3 encode their bytes
        if f"{module}.{name}" not in known:
            raise pickle.UnpicklingError(f"GLOBAL {module}.{name}")
        return known[f"{module}.{name}"]
