"""Reading a file: places, spellings, and files that are none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ltrec.config import yaml_source
from ltrec.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path


def test_places_and_spellings_are_kept() -> None:
    source = yaml_source.parse("a: {b: 1E-3,\n    c: '2'}\nd:\n  - x\n  - 0x10\ne:\n", "f.yaml")
    assert source.data == {"a": {"b": 0.001, "c": "2"}, "d": ["x", 16], "e": None}
    assert source.values["a", "b"] == (1, 8)
    assert source.keys["a", "c"] == (2, 5)
    assert source.values["d", 1] == (5, 5)
    assert source.values["e",] == (6, 1), "an empty value stands where its key stands"
    assert source.written["a", "b"] == "1E-3"
    assert source.written["a", "c"] == "'2'"


def test_what_is_missing_is_placed_at_what_is_around_it() -> None:
    source = yaml_source.parse("a:\n  b: 1\n", "f.yaml")
    assert source.value_place(("a", "c")) == (1, 1)
    assert source.value_place(("z", "y")) == (1, 1)
    assert source.value_place(("a", "b", "c")) == (2, 3)


def test_a_byte_order_mark_and_windows_line_ends_are_no_mistake(tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_bytes(b"\xef\xbb\xbfa: 1\r\nb: 2\r\n")
    source = yaml_source.read(file)
    assert source.data == {"a": 1, "b": 2}
    assert source.values["b",] == (2, 4)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, ": no such file; run ltrec in the project's folder, or name the file with --params"),
        (b"a: 1\nb: \xe9\n", ":2: not UTF-8 text (byte 0xe9)"),
        (b"a: [1\n", ":2:1: not YAML: while parsing a flow sequence expected ',' or ']', but got '<stream end>'"),
        (b"a: 1\na: 2\nb: 3\nb: 4\n", ":2:1: a: duplicate key; the first is in line 1"),
        (b"a: {<<: 3}\n", ":1:9: a: << merges mappings, and this is none"),
    ],
)
def test_what_cannot_be_read_is_said_with_its_place(content: bytes | None, message: str, tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError) as error:
        yaml_source.read(file)
    assert str(error.value).splitlines()[0] == f"{file}{message}"


def test_every_duplicate_is_named() -> None:
    with pytest.raises(UserError) as error:
        yaml_source.parse("a: 1\na: 2\nb: {c: 1, c: 2}\n", "f.yaml")
    assert str(error.value).splitlines() == [
        "f.yaml:2:1: a: duplicate key; the first is in line 1",
        "f.yaml:3:11: b.c: duplicate key; the first is in line 3",
    ]


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a folder, not a file"):
        yaml_source.read(tmp_path)
