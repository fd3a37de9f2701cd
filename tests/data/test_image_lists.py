"""The list format: what it may hold, and where a mistake in it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from ltrec.data import image_lists as lists
from ltrec.data.image_lists import list_text, listable, make_list, read_classes, read_list
from ltrec.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    pairs = [("0/a.png", 0), ("1/with two  blanks .png", 1), (" leading/ä\u2028b.jpg", 2), ("2/tab\there.png", 1)]
    file = tmp_path / "train.txt"
    file.write_bytes(list_text(make_list(pairs)).encode())
    images = read_list(file, 3)
    assert list(zip(images.paths, images.labels.tolist(), strict=True)) == pairs
    assert images.labels.dtype == np.int64
    assert images.counts(4).tolist() == [1, 2, 1, 0]


def test_blank_lines_crlf_and_byte_order_mark_do_no_harm(tmp_path: Path) -> None:
    file = tmp_path / "list.txt"
    file.write_bytes(b"\xef\xbb\xbfa.png 0\r\n\r\n  \nsub/../b.png\t1 \nc.png  1")
    images = read_list(file, 2)
    assert images.paths == ("a.png", "sub/../b.png", "c.png ")
    assert images.labels.tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("b.png 3", "label 3 is out of range: there are 3 classes, 0 … 2"),
        ("b.png -1", "label -1 is out of range"),
        ("b.png 1.0", "'1.0' is no whole number"),
        ("b.png ²", "'²' is no whole number"),
        ("b.png nan", "'nan' is no whole number"),
        ("with blank.png", "'blank.png' is no whole number"),
        ("b.png", "expected `relative/path label`, got 'b.png'"),
        (" 1", "expected `relative/path label`"),
        ("/etc/passwd 1", "'/etc/passwd' is absolute"),
        ("C:\\images\\b.png 1", "is absolute"),
        ("../b.png 1", "'../b.png' leaves the source's root"),
        ("a/../../b.png 1", "leaves the source's root"),
        (".. 1", "leaves the source's root"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "val.txt"
    file.write_text(f"a.png 0\n\n{line}\n", encoding="utf-8")
    with pytest.raises(UserError) as caught:
        read_list(file, 3)
    assert str(caught.value).startswith(f"{file}:3: ")
    assert message in str(caught.value)


def test_unknown_images_are_read_where_they_are_expected(tmp_path: Path) -> None:
    file = tmp_path / "test.txt"
    file.write_text("a.png 1\nb.png -1\nc.png 0\nd.png -1\n")
    images = read_list(file, 3, unknown=True)
    assert images.labels.tolist() == [1, -1, 0, -1]
    assert images.counts(3).tolist() == [1, 1, 0]
    assert images.known().paths == ("a.png", "c.png")
    file.write_text("a.png 1\nb.png -2\n")
    with pytest.raises(UserError, match="label -2 is out of range: there are 3 classes, 0 … 2, and -1 for unknown"):
        read_list(file, 3, unknown=True)


@pytest.mark.parametrize("content", ["x" * 3_000_000, "[" + "1, " * 1_000_000 + "1]", f"a {'9' * 3_000_000}"])
def test_a_file_of_one_endless_line_is_refused_briefly_and_at_once(tmp_path: Path, content: str) -> None:
    (tmp_path / "list.txt").write_text(content)
    with pytest.raises(UserError) as caught:
        read_list(tmp_path / "list.txt", 2)
    assert len(str(caught.value)) < 500


def test_odd_blocks_and_plain_ones_read_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a line or two: each is either divided as a whole or line by line."""
    monkeypatch.setattr(lists, "_BLOCK", 20)
    pairs = [(f"folder {n % 3}/{n}.png", n % 10) for n in range(200)]
    lines = [f"{path} {label}" for path, label in pairs]
    file = tmp_path / "list.txt"
    file.write_bytes("\n".join(lines).encode())
    plain = read_list(file, 10)
    lines[50] = lines[50].replace(" ", "\t") + "\r"
    lines[120] = f"\n{lines[120]}  "
    pairs[50] = (f"folder\t{50 % 3}/50.png", 0)
    file.write_bytes("\n".join(lines).encode())
    odd = read_list(file, None)
    assert list(zip(odd.paths, odd.labels.tolist(), strict=True)) == pairs
    assert [index for index in range(200) if plain.paths[index] != odd.paths[index]] == [50]
    assert plain.labels.tolist() == odd.labels.tolist()
    file.write_bytes("\n".join([*lines, "end.png 10"]).encode())
    with pytest.raises(UserError, match=r"list.txt:202: label 10 is out of range"):
        read_list(file, 10)


def test_missing_empty_and_binary_lists_are_the_users_to_mend(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        read_list(tmp_path / "none.txt", 2)
    with pytest.raises(UserError, match="is a folder"):
        read_list(tmp_path, 2)
    (tmp_path / "old.txt").write_bytes(b"a.png 0\rb.png 1\r")
    with pytest.raises(UserError, match=r"old.txt:1: .*one line"):
        read_list(tmp_path / "old.txt", 2)
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(UserError, match="no images"):
        read_list(tmp_path / "empty.txt", 2)
    (tmp_path / "binary.txt").write_bytes(b"a.png 0\n\xff\xfe")
    with pytest.raises(UserError, match=r"not UTF-8 text .* at byte 8"):
        read_list(tmp_path / "binary.txt", 2)


def test_class_names_are_lines(tmp_path: Path) -> None:
    file = tmp_path / "classes.txt"
    file.write_bytes("cat\r\n great  blue heron\nÄpfel\n\n".encode())
    assert read_classes(file) == ("cat", " great  blue heron", "Äpfel")
    file.write_text("cat\n\ndog\n")
    with pytest.raises(UserError, match=r"classes.txt:2: a blank line"):
        read_classes(file)
    file.write_text("cat\ndog\ncat\n")
    with pytest.raises(UserError, match=r"classes.txt:3: class 'cat' is in line 1 already"):
        read_classes(file)
    file.write_text("")
    with pytest.raises(UserError, match="no class names"):
        read_classes(file)


def test_a_list_of_paths_below_a_folder(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("/a/1.png 1\n\nb 2.png 0\n", encoding="utf-8")
    assert read_list(tmp_path / "list", 2, below="val").paths == ("val/a/1.png", "val/b 2.png")
    (tmp_path / "list").write_text("/../../1.png 1\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"list:1: 'val/../../1.png' leaves the source's root"):
        read_list(tmp_path / "list", 2, below="val")


@pytest.mark.parametrize(
    "path", ["train/n01440764/n01440764_10026.JPEG", "a b/ä.png", "a/..b/c..png", "a/../b.png", " a.png", "a./b..png"]
)
def test_a_list_holds_a_path_as_it_is(path: str, tmp_path: Path) -> None:
    assert listable(path) == path
    (tmp_path / "list").write_text(f"{path} 1\n", encoding="utf-8")
    assert read_list(tmp_path / "list", 2).paths == (path,)


@pytest.mark.parametrize("path", ["./m/a.png", "m//a.png", "m/./a.png", "././m///a.png"])
def test_a_file_has_one_name_in_every_list(path: str, tmp_path: Path) -> None:
    assert listable(path) == "m/a.png"
    (tmp_path / "list").write_text(f"m/b.png 0\n{path} 1\n")
    assert read_list(tmp_path / "list", 2).paths == ("m/b.png", "m/a.png")


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("a/../../b.png", "leaves the source's root"),
        ("/a.png", "is absolute"),
        ("C:/a.png", "is absolute"),
        ("a\rb.png", "not text in one line"),
        ("a\udce9.png", "not UTF-8"),
        (" ", "not text in one line"),
        ("./", "names nothing below"),
    ],
)
def test_which_paths_no_list_can_hold(path: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        listable(path)
