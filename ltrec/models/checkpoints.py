"""Checkpoints of others, read without running what is in them.

A pickle names functions and has them called. PyTorch's weights-only reader knows those that put tensors together.
NumPy's, which come along with training scripts' scores and class centres, get stand-ins here: NumPy's own dtypes
believe a pickle that tells them to take bytes for pointers.
"""

from __future__ import annotations

import contextlib
import mmap
import pickle
import re
import warnings
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.serialization import safe_globals

from ltrec.artifacts import present
from ltrec.errors import UserError
from ltrec.models.pickle_limits import PickleScan

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

_REAL = {"float16", "bfloat16", "float32", "float64", "bool", "uint8", "int8", "int16", "int32", "int64"}
_FORBIDDEN = re.compile(r"GLOBAL (?P<name>[\w.]+)")
_ZIP = b"PK\x03\x04"


def read_checkpoint(path: Path) -> object:
    """Return what `torch.save` wrote, in either of its formats.

    It may hold tensors, which come to the CPU, numbers, text, lists, dicts, and NumPy's arrays, which come as something
    that `numpy.asarray` takes.

    Raises:
        UserError: The file is missing or damaged, or has anything else in it.
    """
    stand_ins = numpy_stand_ins(present(path).stat().st_size)
    known: list[Any] = [(function, name) for name, function in stand_ins.items()]
    with present(path).open("rb") as file, warnings.catch_warnings(), safe_globals(known):
        warnings.simplefilter("ignore")  # They are about pickle protocols and storages' old names.
        try:
            _refuse_compressed(path)
            refuse_bombs(path)
            return torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # noqa: BLE001 - out of a damaged pickle comes almost anything
            raise refusal(error, path, "a checkpoint that torch.save wrote", "tensors, NumPy arrays") from None


def is_sound(tensor: Tensor) -> bool:
    """Return whether a tensor is dense, of real numbers, and as large in the file as its shape says."""
    return (
        tensor.device.type == "cpu"
        and tensor.layout == torch.strided
        and str(tensor.dtype).removeprefix("torch.") in _REAL
        and tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()
    )


def refuse_bombs(path: Path) -> None:
    """Look through the pickles of a file before they are read: that of a zip file, or those that follow each other.

    By its first bytes, as PyTorch does: zip's own reader would find an archive behind a pickle.

    Raises:
        UnpicklingError: They go beyond one of the limits in `pickle_limits`.
    """
    if not path.stat().st_size:
        return
    with path.open("rb") as file:
        is_zip = file.read(len(_ZIP)) == _ZIP
    if is_zip:
        with contextlib.suppress(zipfile.BadZipFile), zipfile.ZipFile(path) as packed:  # PyTorch says what is damaged
            for name in packed.namelist():
                if name.endswith(".pkl"):
                    PickleScan(packed.read(name)).run()
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        end: int | None = 0
        # Before 1.6 torch.save wrote five: a number that marks its files, its version, the system, content, and keys.
        for _ in range(5):
            if end is not None:
                end = PickleScan(content, end).run()


def refusal(error: Exception, path: Path, wanted: str, allowed: str) -> UserError:
    """Return the error that says of a file that it is not `wanted`, or that it names what is not `allowed`."""
    text = " ".join(str(error).split())
    if isinstance(error, UserError):
        what = error.what
    elif named := _FORBIDDEN.search(text):
        only = f"only {allowed}, numbers, text, lists and dicts are read"
        what = f"refused before any code of it ran: it names {named['name'][:100]}; {only}"
    else:
        # The first sentence alone: torch goes on with the advice to trust the file and run its code.
        reason = re.split(r"\. | Check the doc", text.rpartition("WeightsUnpickler error: ")[2])[0][:120]
        what = f"damaged or not {wanted} ({': '.join(filter(None, (type(error).__name__, reason)))})"
    return UserError(what, where=str(path))


def numpy_stand_ins(size: int) -> dict[str, Any]:
    """Return what stands for each name in pickles of arrays; made anew each time, since a pickle may change it.

    All arrays together may have twice the bytes of the file, `size`: more come of the same bytes taken again and again.
    """
    left = 2 * size

    class _Counted(_Dtype):
        """A dtype that counts the bytes of its arrays."""

        def filled(self, data: Any, shape: tuple[int, ...], order: Any) -> NDArray[Any]:
            nonlocal left
            left -= len(data)
            if left < 0:
                raise pickle.UnpicklingError("arrays of more bytes than the file has")
            return super().filled(data, shape, order)

    def reconstruct(array: type[_Array], *_: object) -> _Array:
        return array()

    def scalar(dtype: _Dtype, data: Any) -> Any:
        return dtype.filled(data, (1,), "C")[0]

    def from_buffer(data: Any, dtype: _Dtype, shape: tuple[int, ...], order: Any, axes: Any = None) -> NDArray[Any]:
        return dtype.filled(data, shape, order) if axes is None else dtype.filled(data, shape, "C").transpose(axes)

    known: dict[str, Any] = {"numpy.ndarray": _Array, "numpy.dtype": _Counted}
    for package in ("numpy.core", "numpy._core"):  # before NumPy 2 and since
        known[f"{package}.multiarray._reconstruct"] = reconstruct
        known[f"{package}.multiarray.scalar"] = scalar
        known[f"{package}.numeric._frombuffer"] = from_buffer
    return known


class _Dtype:
    """Stands for `numpy.dtype`: numbers and text, of which a pickle's state may change the byte order only."""

    def __init__(self, kind: str, *_: object) -> None:
        if not re.fullmatch(r"[biufcSU][0-9]+", kind):
            raise pickle.UnpicklingError(f"an array of {kind!r}; only numbers and text are read")
        self._dtype = np.dtype(kind)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._dtype = self._dtype.newbyteorder(state[1])

    def filled(self, data: Any, shape: tuple[int, ...], order: Any) -> NDArray[Any]:
        """Return the array with these bytes, which pickles before protocol 3 hold as text."""
        raw = data.encode("latin1") if isinstance(data, str) else data
        return np.frombuffer(raw, self._dtype).reshape(shape, order=order).copy(order="K")


class _Array:
    """Stands for `numpy.ndarray`, which a pickle makes empty and fills then; `numpy.asarray` takes it."""

    def __init__(self, *_: object) -> None:
        self._value: NDArray[Any] = np.empty(0)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, data = state
        self._value = dtype.filled(data, shape, "F" if fortran else "C")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self._value, dtype=dtype, copy=copy)


def _refuse_compressed(path: Path) -> None:
    """Refuse a compressed zip file, of which 2 MB may ask for 2 GB; torch.save compresses nothing.

    Raises:
        UserError: The content is larger than the file.
    """
    with contextlib.suppress(zipfile.BadZipFile), zipfile.ZipFile(path) as packed:  # torch says what is damaged
        if sum(entry.file_size for entry in packed.infolist()) > path.stat().st_size:
            raise UserError("is compressed, which torch.save does not do")
