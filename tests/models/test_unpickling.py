"""Files of others: everything harmless is read, and nothing of the rest is run."""

from __future__ import annotations

import argparse
import io
import os
import pickle
import pickletools
import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from ltrec.errors import UserError
from ltrec.models.unpickling import is_sound, read_checkpoint, read_pickle

if TYPE_CHECKING:
    from collections.abc import Callable

    Read = Callable[[Path], object]

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
ARRAYS = {
    "floats": np.arange(6, dtype=np.float32).reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "transposed": np.arange(24).reshape(2, 3, 4).transpose(1, 2, 0),
    "big-endian": np.arange(3, dtype=">i4"),
    "names": np.array(["kingfisher", "bittern"]),
    "scalar": np.float64(0.25),
}


class Call:
    """Pickled, it is the call of a function."""

    def __init__(self, function: Callable[..., Any], *arguments: object) -> None:
        self.call = function, arguments

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


def torch_file(content: object, *, zipped: bool) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


def as_numpy_1(pickled: bytes) -> bytes:
    """The same with NumPy's modules under their name before version 2; only for protocols without lengths of frames."""
    assert b"numpy._core" in pickled
    return pickled.replace(b"cnumpy._core.", b"cnumpy.core.")


def same(read: object, written: object) -> bool:
    array, wanted = np.asarray(read), np.asarray(written)
    return array.dtype == wanted.dtype and np.array_equal(array, wanted)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_of_every_protocol(name: str, protocol: int, tmp_path: Path) -> None:
    file = tmp_path / "dump.pkl"
    file.write_bytes(pickle.dumps({name: ARRAYS[name]}, protocol))
    read: Any = read_pickle(file)
    assert same(read[name], ARRAYS[name])


@pytest.mark.parametrize("zipped", [True, False, None], ids=["zip", "legacy", "pickle"])
def test_bytes_are_never_taken_for_pointers(zipped: bool | None, tmp_path: Path) -> None:
    """A dtype of objects whose state denies that it is one: NumPy would follow the bytes as addresses, and crash."""
    pointers, file = Call(np.dtype, "O8", False, True), tmp_path / "model.pth"
    pointers.call = (*pointers.call, (3, "|", None, None, None, -1, -1, 0))
    array = Call(np.zeros(0).__reduce__()[0], np.ndarray, (0,), b"b")
    array.call = (*array.call, (1, (1,), pointers, False, b"\x01" * 8))
    single = Call(np.float64(0).__reduce__()[0], pointers, b"\x01" * 8)
    for content, harmless in ([array], True), ([single], False):
        file.write_bytes(pickle.dumps(content, 2) if zipped is None else torch_file(content, zipped=zipped))
        read = read_pickle if zipped is None else read_checkpoint
        if harmless:
            got: Any = read(file)
            assert np.asarray(got[0]).shape == (0,)
        else:
            with pytest.raises(UserError, match="damaged or not a"):
                read(file)


def test_records_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "dump.pkl"
    file.write_bytes(pickle.dumps(np.zeros(1, dtype=[("a", "f4")])))
    with pytest.raises(UserError, match=r"an array of 'V4'; only numbers and text are read\)$"):
        read_pickle(file)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_tensors_of_every_protocol(protocol: int, tmp_path: Path) -> None:
    tensor, file = torch.arange(6.0).reshape(2, 3).T, tmp_path / "dump.pkl"
    file.write_bytes(pickle.dumps([tensor], protocol))
    read: Any = read_pickle(file)
    assert torch.equal(read[0], tensor)


def test_pickles_of_older_numpy(tmp_path: Path) -> None:
    file = tmp_path / "dump.pkl"
    file.write_bytes(as_numpy_1(pickle.dumps({"feats": ARRAYS["floats"], "best": ARRAYS["scalar"]}, 2)))
    named = {argument for _, argument, _ in pickletools.genops(file.read_bytes()) if isinstance(argument, str)}
    assert {"numpy.core.multiarray _reconstruct", "numpy.core.multiarray scalar"} <= named
    read: Any = read_pickle(file)
    assert same(read["feats"], ARRAYS["floats"])
    assert same(read["best"], ARRAYS["scalar"])


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("old", [True, False], ids=["numpy 1", "numpy 2"])
def test_checkpoints_with_arrays(zipped: bool, old: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if old:  # what the pickles of NumPy's arrays name is the module that its functions say they are of

        class Multiarray(pickle._Pickler):  # type: ignore[name-defined]  # pickle's own, in Python
            def save_global(self, obj: Any, name: str | None = None) -> None:
                module = getattr(obj, "__module__", None) or ""
                if module.startswith("numpy._core"):
                    self.write(f"c{module.replace('_core', 'core')}\n{obj.__name__}\n".encode())
                    self.memoize(obj)
                else:
                    super().save_global(obj, name)

        monkeypatch.setattr(pickle, "Pickler", Multiarray)
    content = {"weight": torch.arange(3.0), **ARRAYS}
    data = torch_file(content, zipped=zipped)
    assert (b"numpy.core.multiarray" in data) == old
    file = tmp_path / "model.pth"
    file.write_bytes(data)
    read: Any = read_checkpoint(file)
    assert torch.equal(read.pop("weight"), content["weight"])
    assert read.keys() == ARRAYS.keys()
    assert all(same(read[name], array) for name, array in ARRAYS.items())


@pytest.mark.parametrize("kind", list(hostile(Path("mark"))))
@pytest.mark.parametrize("form", ["pickle", "zip", "legacy"])
def test_nothing_hostile_is_run(kind: str, form: str, tmp_path: Path) -> None:
    mark, file = tmp_path / "mark", tmp_path / "model.pth"
    content = {"state_dict_best": hostile(mark)[kind]}
    file.write_bytes(pickle.dumps(content) if form == "pickle" else torch_file(content, zipped=form == "zip"))
    with pytest.raises(UserError, match=rf"^{re.escape(str(file))}: refused before any code of it ran") as refused:
        (read_pickle if form == "pickle" else read_checkpoint)(file)
    assert "\n" not in str(refused.value)
    assert not mark.exists()


def test_the_hostile_file_is_hostile(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    pickle.loads(pickle.dumps(hostile(mark)["posix.system"]))  # noqa: S301 - our own
    assert mark.exists()


def test_a_storage_inside_a_pickle_is_read_as_carefully(tmp_path: Path) -> None:
    mark, file = tmp_path / "mark", tmp_path / "dump.pkl"
    inner = torch_file(Call(os.system, f"touch {mark}"), zipped=False)
    file.write_bytes(pickle.dumps(Call(torch.storage._load_from_bytes, inner)))
    with pytest.raises(UserError, match=r"it names posix\.system; only tensors"):
        read_pickle(file)
    assert not mark.exists()


@pytest.mark.parametrize("read", [read_pickle, read_checkpoint])
def test_what_it_names_is_told(read: Read, tmp_path: Path) -> None:
    file = tmp_path / "model.pth"
    content = {"options": argparse.Namespace(lr=0.1)}
    file.write_bytes(pickle.dumps(content) if read is read_pickle else torch_file(content, zipped=True))
    with pytest.raises(UserError, match=r"it names argparse\.Namespace; only tensors, NumPy arrays, numbers, text, "):
        read(file)


def deflated(data: bytes) -> bytes:
    """The same zip file, compressed."""
    whole = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as stored, zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as packed:
        for entry in stored.infolist():
            packed.writestr(entry.filename, stored.read(entry))
    return whole.getvalue()


def test_a_compressed_file_is_refused_before_it_fills_the_memory(tmp_path: Path) -> None:
    file = tmp_path / "model.pth"
    data = deflated(torch_file({"weight": torch.zeros(1_000_000)}, zipped=True))
    file.write_bytes(data)
    with pytest.raises(UserError, match=r"model\.pth: is compressed, which torch\.save does not do$"):
        read_checkpoint(file)
    file.write_bytes(pickle.dumps(Call(torch.storage._load_from_bytes, data)))
    with pytest.raises(UserError, match=r"model\.pth: is compressed"):
        read_pickle(file)


def test_a_place_far_out_in_the_memo_takes_no_memory(tmp_path: Path) -> None:
    file = tmp_path / "dump.pkl"
    file.write_bytes(b"\x80\x02K\x01r" + (2**32 - 1).to_bytes(4, "little") + b".")  # 64 GB in the C unpickler
    assert read_pickle(file) == 1


@pytest.mark.parametrize(
    ("tensor", "sound"),
    [
        (torch.ones(3, 4)[1], True),
        (torch.ones(2, dtype=torch.bfloat16), True),
        (torch.zeros(1).expand(10**6, 10**6), False),
        (torch.empty(3, device="meta"), False),
        (torch.ones(2, dtype=torch.complex64), False),
        (torch.ones(2, 2).to_sparse(), False),
    ],
)
def test_tensors_that_are_what_they_say(tensor: torch.Tensor, sound: bool) -> None:
    assert is_sound(tensor) is sound


_ZIP, _LEGACY = (torch_file({"weight": torch.zeros(1000)}, zipped=zipped) for zipped in (True, False))


@pytest.mark.parametrize(
    "data",
    {
        "empty": b"",
        "text": b"<!DOCTYPE html>\n<html>404</html>\n",
        "zip without its end": _ZIP[:-100],
        "half a zip": _ZIP[: len(_ZIP) // 2],
        "legacy without its end": _LEGACY[:-200],
        "start of a legacy file": _LEGACY[:40],
        "zip of nothing": b"PK\x05\x06" + bytes(18),
    }.items(),
    ids=lambda item: item[0],
)
def test_damaged_checkpoints(data: tuple[str, bytes], tmp_path: Path) -> None:
    file = tmp_path / "model.pth"
    file.write_bytes(data[1])
    with pytest.raises(UserError, match=r": damaged or not a checkpoint that torch\.save wrote \(") as told:
        read_checkpoint(file)
    assert "\n" not in str(told.value)
    assert "weights_only" not in str(told.value), "nobody is told to trust it"


@pytest.mark.parametrize("data", [b"", b"<!DOCTYPE html>", pickle.dumps(ARRAYS)[:-20], _ZIP])
def test_damaged_pickles(data: bytes, tmp_path: Path) -> None:
    file = tmp_path / "dump.pkl"
    file.write_bytes(data)
    with pytest.raises(UserError, match=r": damaged or not a pickle \(") as told:
        read_pickle(file)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("read", [read_pickle, read_checkpoint])
def test_a_missing_file(read: Read, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model\.pth: no such file$"):
        read(tmp_path / "model.pth")
