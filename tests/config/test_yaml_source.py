"""Reading a file: places, spellings, and files that are none."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from ltrec.config import yaml_source
from ltrec.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path


def test_places_and_spellings_are_kept() -> None:
    source = yaml_source.parse("a: {b: 1E-3,\n    c: '2'}\nd:\n  - x\n  - 0x10\ne:\n", "f.yaml")
    assert json.loads(source.content) == {"a": {"b": 0.001, "c": "2"}, "d": ["x", 16], "e": None}
    assert source.find(("a", "b")) == ((1, 5), (1, 8), "1E-3")
    assert source.find(("a", "c")) == ((2, 5), (2, 8), "'2'")
    assert source.find(("d", 1)) == ((5, 5), (5, 5), "0x10")
    assert source.find(("a",)) == ((1, 1), (1, 4), "{b: 1E-3, c: '2'}")
    assert source.find(("e",)) == ((6, 1), (6, 1), "nothing"), "an empty value stands where its key stands"


def test_what_is_missing_is_placed_at_what_is_around_it() -> None:
    source = yaml_source.parse("x: 1\na:\n  b: 1\n", "f.yaml")
    assert source.find(("a", "c")) == ((2, 1), (2, 1), "")
    assert source.find(("z", "y")) == ((1, 1), (1, 1), "")
    assert source.find(("a", "b", "c")) == ((3, 3), (3, 3), "")


def test_a_byte_order_mark_and_windows_line_ends_are_no_mistake(tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_bytes(b"\xef\xbb\xbfa: 1\r\nb: 2\r\n")
    source = yaml_source.read(file)
    assert json.loads(source.content) == {"a": 1, "b": 2}
    assert source.find(("b",))[1] == (2, 4)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, ": no such file; run ltrec in the project's folder, or name the file with --params"),
        (b"a: 1\nb: \xe9\n", ":2: not UTF-8 text (byte 0xe9)"),
        (b"a: [1\n", ":2:1: not YAML: while parsing a flow sequence expected ',' or ']'"),
        (b"a: 1\na: 2\nb: 3\nb: 4\n", ":2:1: a: duplicate key; the first is in line 1"),
        (b"a: {<<: 3}\n", ":1:9: not YAML: while constructing a mapping expected a mapping"),
    ],
)
def test_what_cannot_be_read_is_said_with_its_place(content: bytes | None, message: str, tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError) as error:
        yaml_source.read(file)
    assert str(error.value).splitlines()[0].startswith(f"{file}{message}")


def test_every_duplicate_is_named() -> None:
    with pytest.raises(UserError) as error:
        yaml_source.parse("a: 1\na: 2\nb: {c: 1, c: 2}\n", "f.yaml")
    assert str(error.value).splitlines() == [
        "f.yaml:2:1: a: duplicate key; the first is in line 1",
        "f.yaml:3:11: b.c: duplicate key; the first is in line 3",
    ]


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot be read \(Is a directory\)$"):
        yaml_source.read(tmp_path)
