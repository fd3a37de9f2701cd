"""Files that are not what they say: calls in place of data; and arrays that must be read all the same."""

from __future__ import annotations

import io
import os
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Callable

ARRAYS = {
    "floats": np.arange(6, dtype=np.float32).reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "transposed": np.arange(24).reshape(2, 3, 4).transpose(1, 2, 0),
    "big-endian": np.arange(3, dtype=">i4"),
    "names": np.array(["kingfisher", "bittern"]),
    "scalar": np.float64(0.25),
}


class Call:
    """Pickled, it is the call of a function, and the setting of a state on what that gives."""

    def __init__(self, function: Callable[..., Any], *arguments: object, state: object = None) -> None:
        self.call = (function, arguments, state)

    def __reduce__(self) -> Any:
        return self.call


def hostile(mark: Path) -> dict[str, Call]:
    """Each would leave `mark` behind, if it were run."""
    return {
        "posix.system": Call(os.system, f"touch {mark}"),
        "eval": Call(eval, f"__import__('pathlib').Path({str(mark)!r}).touch()"),
        "pathlib": Call(Path.touch, mark),
        "torch.load": Call(torch.load, io.BytesIO(pickle.dumps(Call(os.system, f"touch {mark}")))),
    }


def pointers() -> list[Call]:
    """An array and a number of a dtype of objects whose state denies it: NumPy would follow the bytes as addresses."""
    dtype = Call(np.dtype, "O8", False, True, state=(3, "|", None, None, None, -1, -1, 0))
    reconstruct, scalar = np.zeros(0).__reduce__()[0], np.float64(0).__reduce__()[0]
    array = Call(reconstruct, np.ndarray, (0,), b"b", state=(1, (1,), dtype, False, b"\x01" * 8))
    return [array, Call(scalar, dtype, b"\x01" * 8)]


def changed(data: bytes, seed: int) -> bytes:
    """The same with up to three bytes at random."""
    random, copy = np.random.default_rng(seed), bytearray(data)
    for place in random.integers(len(data), size=random.integers(1, 4)):
        copy[place] = random.integers(256)
    return bytes(copy)


def same(read: object, written: object) -> bool:
    array, wanted = np.asarray(read), np.asarray(written)
    return array.dtype == wanted.dtype and np.array_equal(array, wanted)
