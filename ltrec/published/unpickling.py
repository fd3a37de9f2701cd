"""Pickles of others, read without running what is in them.

A pickle names functions and has them called. Here only those are known that put tensors and NumPy arrays
together again; a file that names anything else is refused before anything of it is called.
"""

from __future__ import annotations

import io
import pickle
import re
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from ltrec.artifacts import present
from ltrec.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# NumPy 2 renamed the package in which its arrays' pickles look for what puts them together.
_NUMPY_PACKAGES = ("numpy.core", "numpy._core")
_FORBIDDEN = re.compile(r"GLOBAL (?P<name>[\w.]+)")


def read_checkpoint(path: Path) -> object:
    """What `torch.save` wrote, in either of its formats: tensors, NumPy arrays, and what Python has for them to lie in.

    Raises:
        UserError: missing, damaged, no such file, or one with anything else in it.
    """
    import torch
    from torch.serialization import safe_globals

    with present(path).open("rb") as file, warnings.catch_warnings(), safe_globals(_numpy_globals()):
        warnings.simplefilter("ignore")  # of pickle protocols and of storages' old names
        try:
            return torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # noqa: BLE001 - out of a damaged pickle comes almost anything
            raise _refusal(error, path, "not a checkpoint that torch.save wrote") from None


def read_pickle(path: Path) -> object:
    """What `pickle.dump` wrote: NumPy arrays, tensors, and what Python has for them to lie in.

    Raises:
        UserError: missing, damaged, no such file, or one with anything else in it.
    """
    with present(path).open("rb") as file:
        try:
            return _Unpickler(file, encoding="latin1").load()
        except Exception as error:  # noqa: BLE001 - out of a damaged pickle comes almost anything
            raise _refusal(error, path, "not a pickle") from None


def _refusal(error: Exception, path: Path, otherwise: str) -> UserError:
    text = " ".join(str(error).split())
    if named := _FORBIDDEN.search(text):
        return UserError(
            f"refused before any code of it ran: it names {named['name']}; only tensors, NumPy arrays,"
            " numbers, text, lists and dicts are read",
            where=str(path),
        )
    # The first sentence; of torch's advice to trust the file and run its code nothing is passed on.
    said = re.split(r"\. | Check the doc", text.rpartition("WeightsUnpickler error: ")[2])[0][:120]
    kind = type(error).__name__
    return UserError(f"damaged or {otherwise} ({f'{kind}: {said}' if said else kind})", where=str(path))


def _numpy_globals() -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """What `torch.load` must know of NumPy, under its old and its new name."""
    from numpy._core import multiarray

    functions = [
        (getattr(multiarray, name), f"{package}.multiarray.{name}")
        for package in _NUMPY_PACKAGES
        for name in ("_reconstruct", "scalar")
    ]
    kinds: list[Callable[..., Any]] = [getattr(np.dtypes, name) for name in np.dtypes.__all__]
    return [np.ndarray, np.dtype, *kinds, *functions]


class _Unpickler(pickle.Unpickler):
    """Knows what puts arrays and tensors together, and nothing else."""

    def find_class(self, module: str, name: str, /) -> Any:
        known = _known()
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"GLOBAL {module}.{name}")
        return known[module, name]


def _known() -> dict[tuple[str, str], Any]:
    """Made anew each time: a pickle may set attributes of the functions that it is given."""
    from collections import OrderedDict

    from numpy._core import multiarray

    def from_buffer(buffer: bytes, dtype: np.dtype[Any], shape: tuple[int, ...], order: Any, axes: Any = None) -> Any:
        if order == "K":
            return np.frombuffer(buffer, dtype=dtype).reshape(shape, order="C").transpose(axes)
        return np.frombuffer(buffer, dtype=dtype).reshape(shape, order=order)

    def encode(text: str, encoding: str = "latin1") -> bytes:
        return text.encode({"latin1": "latin1"}[encoding])

    def storage(content: bytes) -> Any:
        import torch

        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)

    def tensor(*arguments: Any) -> Any:
        from torch._utils import _rebuild_tensor_v2

        return _rebuild_tensor_v2(*arguments)  # type: ignore[no-untyped-call]

    numpy_functions = {
        "multiarray": {"_reconstruct": multiarray._reconstruct, "scalar": multiarray.scalar},  # noqa: SLF001
        "numeric": {"_frombuffer": from_buffer},
    }
    return {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("collections", "OrderedDict"): OrderedDict,
        ("_codecs", "encode"): encode,
        ("torch._utils", "_rebuild_tensor_v2"): tensor,
        ("torch.storage", "_load_from_bytes"): storage,
    } | {
        (f"{package}.{module}", name): function
        for package in _NUMPY_PACKAGES
        for module, functions in numpy_functions.items()
        for name, function in functions.items()
    }
