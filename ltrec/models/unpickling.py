"""Pickles of others, read without running what is in them.

A pickle names functions and has them called. Here only those are known that put tensors and NumPy arrays
together again; a file that names anything else is refused. NumPy's own are replaced by stand-ins: its dtypes
believe a pickle that tells them to take bytes for pointers.
"""

from __future__ import annotations

import contextlib
import io
import pickle
import re
import warnings
import zipfile
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from ltrec.artifacts import present
from ltrec.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

# NumPy 2 renamed the package in which its arrays' pickles look for what puts them together.
_NUMPY_PACKAGES = ("numpy.core", "numpy._core")
_REAL = (
    "float16", "bfloat16", "float32", "float64",
    "bool", "uint8", "int8", "int16", "int32", "int64",
)  # fmt: skip
_FORBIDDEN = re.compile(r"GLOBAL (?P<name>[\w.]+)")


def read_checkpoint(path: Path) -> object:
    """What `torch.save` wrote, in either of its formats: tensors, arrays, and what Python has for them to lie in.

    NumPy's arrays come as something that `numpy.asarray` takes.

    Raises:
        UserError: missing, damaged, no such file, or one with anything else in it.
    """
    import torch
    from torch.serialization import MAGIC_NUMBER, safe_globals

    known: list[Any] = [(function, name) for name, function in _numpys().items()]
    with present(path).open("rb") as file, warnings.catch_warnings(), safe_globals(known):
        warnings.simplefilter("ignore")  # of pickle protocols and of storages' old names
        magic = pickle.dumps(MAGIC_NUMBER, protocol=2)  # in front of what torch.save wrote before it took to zip files
        if (begin := file.read(len(magic))).startswith(pickle.PROTO) and begin != magic:
            raise UserError("is a pickle, but none that torch.save wrote; no code of it was run", where=str(path))
        file.seek(0)
        try:
            _refuse_packed(file)
            return torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # noqa: BLE001 - out of a damaged pickle comes almost anything
            raise _refusal(error, path, "not a checkpoint that torch.save wrote") from None


def read_pickle(path: Path) -> object:
    """What `pickle.dump` wrote: tensors, arrays, and what Python has for them to lie in; else as `read_checkpoint`.

    Raises:
        UserError: missing, damaged, no such file, or one with anything else in it.
    """
    with present(path).open("rb") as file:
        try:
            return _Unpickler(file, encoding="latin1").load()
        except Exception as error:  # noqa: BLE001 - out of a damaged pickle comes almost anything
            raise _refusal(error, path, "not a pickle") from None


def is_sound(tensor: Tensor) -> bool:
    """Whether it is dense, of real numbers, and has as many in the file as its shape says: one may be a forgery."""
    return (
        tensor.device.type == "cpu"
        and str(tensor.layout) == "torch.strided"
        and str(tensor.dtype).removeprefix("torch.") in _REAL
        and tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()
    )


def _refuse_packed(file: IO[bytes]) -> None:
    """torch.save stores as it is; a compressed zip file of 2 MB may ask for 2 GB.

    Raises:
        UserError: the content is larger than its file.
    """
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    if zipfile.is_zipfile(file):
        with contextlib.suppress(zipfile.BadZipFile), zipfile.ZipFile(file) as packed:  # torch says what is damaged
            if sum(entry.file_size for entry in packed.infolist()) > size:
                raise UserError("is compressed, which torch.save does not do")
    file.seek(0)


def _refusal(error: Exception, path: Path, otherwise: str) -> UserError:
    if isinstance(error, UserError):
        return UserError(error.what, where=str(path))
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


class _Dtype:
    """Stands for `numpy.dtype`: numbers and text, of which the state may change the byte order only."""

    def __init__(self, kind: str, *_: object) -> None:
        if not re.fullmatch(r"[biufcSUO][0-9]+", kind):
            raise pickle.UnpicklingError(f"an array of {kind!r}; only numbers and text are read")
        self.value = np.dtype(kind)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.value = self.value.newbyteorder(state[1])

    def filled(self, data: Any, shape: tuple[int, ...], order: Any) -> NDArray[Any]:
        """The array with these bytes; one of Python's objects stays empty, since nothing here needs any."""
        if self.value.kind == "O":
            return np.empty(0, dtype=object)
        raw = data.encode("latin1") if isinstance(data, str) else data
        return np.frombuffer(raw, self.value).reshape(shape, order=order).copy(order="K")


class _Array:
    """Stands for `numpy.ndarray`, which a pickle makes empty and fills then; `numpy.asarray` takes it."""

    def __init__(self, *_: object) -> None:
        self._value: NDArray[Any] = np.empty(0)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, data = state
        self._value = dtype.filled(data, shape, "F" if fortran else "C")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self._value, dtype=dtype, copy=copy)


def _numpys() -> dict[str, Any]:
    """What pickles of arrays name, and what is called for it; anew each time, since a pickle may set attributes."""

    def reconstruct(array: type[_Array], *_: object) -> _Array:
        return array()

    def scalar(dtype: _Dtype, data: Any = b"") -> Any:
        return dtype.filled(data, (1,), "C")[0]

    def from_buffer(data: Any, dtype: _Dtype, shape: tuple[int, ...], order: Any, axes: Any = None) -> NDArray[Any]:
        if order == "K":
            return dtype.filled(data, shape, "C").transpose(axes)
        return dtype.filled(data, shape, order)

    functions = {
        "multiarray._reconstruct": reconstruct,
        "multiarray.scalar": scalar,
        "numeric._frombuffer": from_buffer,
    }
    return {"numpy.ndarray": _Array, "numpy.dtype": _Dtype} | {
        f"{package}.{name}": function for package in _NUMPY_PACKAGES for name, function in functions.items()
    }


class _Unpickler(pickle._Unpickler):  # noqa: SLF001 - see below
    """Knows what puts arrays and tensors together, and nothing else.

    In Python: its memo is a dict, that of the fast one an array as long as ten bytes of a pickle may ask for.
    """

    def find_class(self, module: str, name: str, /) -> Any:
        known = _numpys() | _tensors()
        if f"{module}.{name}" not in known:
            raise pickle.UnpicklingError(f"GLOBAL {module}.{name}")
        return known[f"{module}.{name}"]


def _tensors() -> dict[str, Any]:
    """What a tensor names that was pickled by `pickle.dump`."""
    from collections import OrderedDict

    def encode(text: str, _: str) -> bytes:
        return text.encode("latin1")

    def storage(content: bytes) -> Any:
        import torch

        _refuse_packed(io.BytesIO(content))
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)

    def tensor(*arguments: Any) -> Any:
        from torch._utils import _rebuild_tensor_v2

        return _rebuild_tensor_v2(*arguments)  # type: ignore[no-untyped-call]

    return {
        "collections.OrderedDict": OrderedDict,
        "_codecs.encode": encode,  # before protocol 3, of bytes
        "torch._utils._rebuild_tensor_v2": tensor,
        "torch.storage._load_from_bytes": storage,
    }
