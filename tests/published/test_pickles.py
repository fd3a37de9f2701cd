"""Pickles of arrays: everything harmless is read, and nothing of the rest is run."""

from __future__ import annotations

import argparse
import collections
import pickle
import pickletools
import re
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ltrec.errors import UserError
from ltrec.models import pickle_limits
from ltrec.published.pickles import read_pickle
from tests.hostile import ARRAYS, changed, hostile, pointers, same

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "dump.pkl"


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_of_every_protocol(name: str, protocol: int, file: Path) -> None:
    file.write_bytes(pickle.dumps({name: ARRAYS[name]}, protocol))
    read: Any = read_pickle(file)
    assert same(read[name], ARRAYS[name])


def test_pickles_of_older_numpy(file: Path) -> None:
    """The names before NumPy 2; protocol 2 holds no lengths that would have to change with them."""
    pickled = pickle.dumps({"feats": ARRAYS["floats"], "best": ARRAYS["scalar"]}, 2)
    file.write_bytes(pickled.replace(b"cnumpy._core.", b"cnumpy.core."))
    named = {argument for _, argument, _ in pickletools.genops(file.read_bytes()) if isinstance(argument, str)}
    assert {"numpy.core.multiarray _reconstruct", "numpy.core.multiarray scalar"} <= named
    read: Any = read_pickle(file)
    assert same(read["feats"], ARRAYS["floats"])
    assert same(read["best"], ARRAYS["scalar"])


@pytest.mark.parametrize(
    ("content", "kind"),
    [(pointers()[0], "O8"), (pointers()[1], "O8"), (np.array([None]), "O8"), (np.zeros(1, [("a", "f4")]), "V4")],
)
def test_objects_and_records_are_refused(content: object, kind: str, file: Path) -> None:
    file.write_bytes(pickle.dumps(content))
    with pytest.raises(UserError, match=rf"an array of '{kind}'; only numbers and text are read\)$"):
        read_pickle(file)


@pytest.mark.parametrize("kind", list(hostile(Path("mark"))))
@pytest.mark.parametrize("protocol", PROTOCOLS[2:])
def test_nothing_hostile_is_run(kind: str, protocol: int, file: Path) -> None:
    mark = file.parent / "mark"
    file.write_bytes(pickle.dumps({"feats": hostile(mark)[kind]}, protocol))
    with pytest.raises(UserError, match=rf"^{re.escape(str(file))}: refused before any code of it ran") as refused:
        read_pickle(file)
    assert "\n" not in str(refused.value)
    assert not mark.exists()


def test_the_hostile_file_is_hostile(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    pickle.loads(pickle.dumps(hostile(mark)["posix.system"]))  # noqa: S301 - our own
    assert mark.exists()


@pytest.mark.parametrize(
    ("content", "name"),
    [(argparse.Namespace(lr=0.1), r"argparse\.Namespace"), (torch.ones(2), r"torch\._utils\._rebuild_tensor_v2")],
)
def test_what_it_names_is_told(content: object, name: str, file: Path) -> None:
    file.write_bytes(pickle.dumps({"content": content}))
    with pytest.raises(UserError, match=rf"it names {name}; only NumPy arrays, numbers, text, lists and dicts are"):
        read_pickle(file)


def test_a_place_far_out_in_the_memo_takes_no_memory(file: Path) -> None:
    file.write_bytes(b"\x80\x02K\x01r" + (2**32 - 1).to_bytes(4, "little") + b".")  # 64 GB in the C unpickler
    assert read_pickle(file) == 1


@pytest.mark.parametrize("data", [b"", b"<!DOCTYPE html>", pickle.dumps(ARRAYS)[:-20], b"PK\x03\x04"])
def test_damaged_pickles(data: bytes, file: Path) -> None:
    file.write_bytes(data)
    with pytest.raises(UserError, match=r": damaged or not a pickle \(") as told:
        read_pickle(file)
    assert "\n" not in str(told.value)


@pytest.mark.slow
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_file_with_changed_bytes_is_read_or_refused_in_one_line(protocol: int, file: Path) -> None:
    data, refused = pickle.dumps(ARRAYS, protocol), 0
    for seed in range(300):
        file.write_bytes(changed(data, seed))
        try:
            read_pickle(file)
        except UserError as error:
            refused += "\n" not in str(error)
    assert refused > 10


def test_a_missing_file(file: Path) -> None:
    with pytest.raises(UserError, match=r"dump\.pkl: no such file$"):
        read_pickle(file)


def doubled(times: int, *, as_key: bool) -> bytes:
    """A pickle of a tuple of twice the one before, so many times, as a dict's key or alone."""
    steps = b"".join(b"h%ch%c\x86q%c" % (n, n, n + 1) for n in range(times))
    return b"\x80\x02K\x01\x85q\x00" + steps + (b"}h%cK\x01s." % times if as_key else b".")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (doubled(60, as_key=True), "a key of more than 10,000 values"),
        (b"\x80\x02T\xff\xff\xff\x7fabc.", "2,147,483,647 bytes are announced, more than there are"),
        (b"\x80\x04\x8e\xff\xff\xff\xff\xff\x00\x00\x00abc.", "1,099,511,627,775 bytes are announced"),
        (b"\x80\x05\x96\xff\xff\xff\xff\xff\x00\x00\x00abc.", "1,099,511,627,775 bytes are announced"),
        (b"\x80\x04\x95\xff\xff\xff\xff\xff\x00\x00\x00N.", "1,099,511,627,775 bytes are announced"),
        (b"\x80\x02\x8b\x88\x13\x00\x00" + b"\x01" * 5000 + b".", "a number of 5,000 bytes"),
        (b"I" + b"1" * 5000 + b"\n.", "a number of 5,001 bytes"),
        (b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00punyc\x86R.", "to be encoded as 'punyc'"),
    ],
)
def test_bombs_are_refused_at_once(data: bytes, words: str, file: Path) -> None:
    file.write_bytes(data)
    began = time.monotonic()
    with pytest.raises(UserError, match=r": damaged or not a pickle \(") as told:
        read_pickle(file)
    assert time.monotonic() - began < 5
    assert words in str(told.value)


def test_an_archive_behind_a_pickle_hides_nothing(file: Path) -> None:
    """`pickle` and PyTorch look at the first bytes, zip's reader at the last."""
    file.write_bytes(doubled(60, as_key=True))
    with zipfile.ZipFile(file, "a") as packed:
        packed.writestr("data.txt", "nothing")
    with pytest.raises(UserError, match="a key of more than 10,000 values"):
        read_pickle(file)


def test_what_is_shared_and_no_key_is_read(file: Path) -> None:
    file.write_bytes(doubled(60, as_key=False))
    assert isinstance(read_pickle(file), tuple)


def test_arrays_of_the_same_bytes_do_not_fill_the_memory(file: Path) -> None:
    array = np.ones(2000)
    file.write_bytes(pickle.dumps([array, array + 1, array], 3))
    read: Any = read_pickle(file)
    assert same(read[2], array)
    # One array's state, called for again and again: BUILD copies its bytes each time.
    once = pickle.dumps(np.ones(2000), 3)[:-1]
    state = once.rindex(b"t")
    again = b"q\xf0b" + b"h\xf0b" * 50 + b"."
    file.write_bytes(once[: state + 1] + again)
    with pytest.raises(UserError, match="arrays of more bytes than the file has"):
        read_pickle(file)


def test_the_number_of_operations_has_a_limit(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickle_limits, "_MOST_OPERATIONS", 1000)
    file.write_bytes(b"N" * 2000 + b".")
    with pytest.raises(UserError, match="more than 1,000 operations"):
        read_pickle(file)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_scan_ends_where_the_pickle_ends(protocol: int) -> None:
    content = {
        "a": [1, 2.5, None, True, "text" * 100, b"x" * 300, 2**200], "t": ((1, 2), (), (1,), (1, 2, 3, 4)),
        "s": {1, 2}, "f": frozenset([3]), **ARRAYS, "o": collections.OrderedDict(a=1),
    }  # fmt: skip
    data = pickle.dumps(content, protocol)
    assert pickle_limits.PickleScan(data + b"rest").run() == len(data)
    assert pickle_limits.PickleScan(b"rest" + data, 4).run() == len(data) + 4
    if protocol < 4:  # the later ones announce how long they are
        assert pickle_limits.PickleScan(data[:-1]).run() is None
