"""Reading a file: places, spellings, and files that are none."""

from __future__ import annotations

import json
import os
import re
import time
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
    with pytest.raises(UserError, match=r": is a folder, not a file$"):
        yaml_source.read(tmp_path)


def test_a_named_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "params.yaml")
    with pytest.raises(UserError, match=r"params.yaml: is a named pipe, not a file$"):
        yaml_source.read(tmp_path / "params.yaml")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("!!int x", "'x' cannot be read as a whole number"),
        ("!!float abc", "'abc' cannot be read as a number"),
        ("!!bool maybe", "'maybe' cannot be read as true or false"),
        ("!!binary aGk=", "the tag !!binary has no meaning here"),
        ("!!python/object:os.system x", "the tag !!python/object:os.system has no meaning here"),
        ("!mine 1", "the tag !mine has no meaning here"),
        ("9" * 5000, " …' cannot be read as a whole number"),
        ("0x" + "f" * 5000, "a whole number of more than 4,200 digits"),
        ("[" * 100_000, "nested more than 50 deep"),
        (r'"\uD800"', "half of a character"),
        ("&loop [*loop]", "an alias of what it stands in"),
    ],
)
def test_a_value_that_cannot_be_had_is_one_line_with_its_place(value: str, words: str) -> None:
    with pytest.raises(UserError) as error:
        yaml_source.parse(f"a: 1\nb: {value}\n", "f.yaml")
    (line,) = error.value.lines
    assert re.match(r"f\.yaml:2:\d+: not YAML: ", line)
    assert words in line
    assert len(line) < 200


def test_tags_that_say_what_is_there_anyway_are_no_mistake() -> None:
    text = "a: !!int 3\nb: !!float 1\nc: !!bool true\nd: !!str 5\ne: !!seq [1]\nf: !!map {x: !!null ''}\n"
    content = json.loads(yaml_source.parse(text, "f.yaml").content)
    assert content == {"a": 3, "b": 1.0, "c": True, "d": "5", "e": [1], "f": {"x": None}}


@pytest.mark.parametrize(
    ("first", "step"),
    [("[x, x]", "[*a{0}, *a{0}]"), ("{{x: 1, y: 2}}", "{{{{<<: [*a{0}, *a{0}]}}}}"), ("[x]", "[*a{0}]")],
)
def test_aliases_that_double_are_refused_at_once(first: str, step: str) -> None:
    lines = [f"a0: &a0 {first.format()}"] + [f"a{n}: &a{n} {step.format(n - 1).format()}" for n in range(1, 100)]
    began = time.monotonic()
    with pytest.raises(UserError, match=r"(more than 20,000 values|nested more than 50 deep), with its aliases"):
        yaml_source.parse("\n".join(lines), "f.yaml")
    assert time.monotonic() - began < 5


def test_a_large_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    with file.open("wb") as opened:
        opened.truncate(10**11)  # nothing of it lies on the disk
    with pytest.raises(UserError, match=r"params.yaml: is longer than 1,048,576 bytes, which no parameters are$"):
        yaml_source.read(file)


def test_a_list_without_end_is_not_read_to_it() -> None:
    began = time.monotonic()
    with pytest.raises(UserError, match="more than 20,000 values"):
        yaml_source.parse(f"a: [{'1,' * 500_000}]", "f.yaml")
    assert time.monotonic() - began < 20
