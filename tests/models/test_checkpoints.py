"""Checkpoints of others: everything harmless is read, and nothing of the rest is run."""

from __future__ import annotations

import argparse
import io
import os
import pickle
import re
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from ltrec.errors import UserError
from ltrec.models.checkpoints import is_sound, read_checkpoint
from ltrec.models.weights import read_state_dict
from tests.hostile import ARRAYS, changed, hostile, pointers, same


def torch_file(content: object, *, zipped: bool) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("content", pointers(), ids=["array", "scalar"])
def test_bytes_are_never_taken_for_pointers(content: object, zipped: bool, tmp_path: Path) -> None:
    file = tmp_path / "model.pth"
    file.write_bytes(torch_file(content, zipped=zipped))
    with pytest.raises(UserError, match=r"an array of 'O8'; only numbers and text are read\)$"):
        read_checkpoint(file)


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
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_nothing_hostile_is_run(kind: str, zipped: bool, tmp_path: Path) -> None:
    mark, file = tmp_path / "mark", tmp_path / "model.pth"
    file.write_bytes(torch_file({"state_dict_best": hostile(mark)[kind]}, zipped=zipped))
    with pytest.raises(UserError, match=rf"^{re.escape(str(file))}: refused before any code of it ran") as refused:
        read_checkpoint(file)
    assert "\n" not in str(refused.value)
    assert not mark.exists()


def test_what_it_names_is_told(tmp_path: Path) -> None:
    file = tmp_path / "model.pth"
    file.write_bytes(torch_file({"options": argparse.Namespace(lr=0.1)}, zipped=True))
    with pytest.raises(UserError, match=r"it names argparse\.Namespace; only tensors, NumPy arrays, numbers, text, "):
        read_checkpoint(file)


def test_a_compressed_file_is_refused_before_it_fills_the_memory(tmp_path: Path) -> None:
    file = tmp_path / "model.pth"
    stored = zipfile.ZipFile(io.BytesIO(torch_file({"weight": torch.zeros(1_000_000)}, zipped=True)))
    with stored, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        for entry in stored.infolist():
            packed.writestr(entry.filename, stored.read(entry))
    with pytest.raises(UserError, match=r"model\.pth: is compressed, which torch\.save does not do$"):
        read_checkpoint(file)


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


@pytest.mark.slow
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_file_with_changed_bytes_is_read_or_refused_in_one_line(zipped: bool, tmp_path: Path) -> None:
    file, refused = tmp_path / "model.pth", 0
    data = torch_file({"weight": torch.arange(3.0), **ARRAYS}, zipped=zipped)
    for seed in range(300):
        file.write_bytes(changed(data, seed))
        try:
            read_checkpoint(file)
        except UserError as error:
            refused += "\n" not in str(error)
    assert refused > 10


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model\.pth: no such file$"):
        read_checkpoint(tmp_path / "model.pth")


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_key_that_takes_for_ever_to_hash_is_refused_at_once(zipped: bool, tmp_path: Path) -> None:
    mark = ("a mark", 0)
    data = torch_file({"weight": torch.ones(2), mark: 1}, zipped=zipped)
    pickled = pickle.dumps(mark, 2)[2:-1]
    steps = b"".join(b"h%ch%c\x86q%c" % (n, n, n + 1) for n in range(200, 250))
    bomb = b"K\x01\x85q\xc8" + steps
    assert pickled[:10] in data
    place = data.index(pickled[:10])
    file = tmp_path / "model.pth"
    if zipped:
        with zipfile.ZipFile(io.BytesIO(data)) as packed, zipfile.ZipFile(file, "w") as changed:
            for entry in packed.namelist():
                content = packed.read(entry)
                if entry.endswith("data.pkl"):
                    at = content.index(pickled[:10])
                    content = content[:at] + bomb + b"0" + content[at:-2] + b"h\xfaK\x01su."
                changed.writestr(entry, content)
    else:
        file.write_bytes(data[:place] + bomb + b"K\x01" + data[place:])
    began = time.monotonic()
    with pytest.raises(UserError, match="a key of more than 10,000 values"):
        read_checkpoint(file)
    assert time.monotonic() - began < 5


def test_of_a_hundred_thousand_odd_keys_the_first_few_are_said(tmp_path: Path) -> None:
    file = tmp_path / "model.pth"
    torch.save({f"odd key {number}": number for number in range(100_000)}, file)
    with pytest.raises(UserError) as error:
        read_state_dict(file)
    (line,) = error.value.lines
    assert "odd key 0, odd key 1, odd key 2, odd key 3, odd key 4 and 99,995 more (--verbose lists them)" in line
    assert len(line) < 500


def test_a_named_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.pth")
    for name in ("model.pth", "/dev/zero"):
        with pytest.raises(UserError, match=r"is a (named pipe|device), not a file$"):
            read_checkpoint(tmp_path / name)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (b")\x81", "a call of what is no function"),
        (b")R", "a call of what is no function"),
        (b"Q", "a key of more than"),
    ],
)
def test_no_message_spells_out_what_would_fill_the_memory(call: bytes, words: str, tmp_path: Path) -> None:
    steps = b"".join(b"h%ch%c\x86q%c" % (n, n, n + 1) for n in range(60))
    (tmp_path / "model.pth").write_bytes(b"\x80\x02K\x01\x85q\x00" + steps + call + b".")
    with pytest.raises(UserError, match=words):
        read_checkpoint(tmp_path / "model.pth")


@pytest.mark.parametrize("module", [b"builtins", b"__builtin__"])
def test_gigabytes_of_zeros_are_not_made(module: bytes, tmp_path: Path) -> None:
    file = tmp_path / "model.pth"
    data = torch_file({"weight": torch.ones(2)}, zipped=False)
    place = data.index(b"weight") - 5
    file.write_bytes(data[:place] + b"c" + module + b"\nbytearray\nJ\xff\xff\xff\x7f\x85R0" + data[place:])
    with pytest.raises(UserError, match=r"it names builtins\.bytearray; only tensors"):
        read_checkpoint(file)
