"""Pickles of arrays: everything harmless is read, and nothing of the rest is run."""

from __future__ import annotations

import argparse
import pickle
import pickletools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ltrec.errors import UserError
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
