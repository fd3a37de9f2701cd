"""Published lists: what they name, and what is wrong with some."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from ltrec.data.shot_groups import shot_groups
from ltrec.data.sources.list_files import ListsSource
from ltrec.errors import UserError
from tests.shared import shared

if TYPE_CHECKING:
    from pathlib import Path

    from ltrec.data.sources.collection import Collection


def scan(root: Path, **files: Any) -> Collection:
    """Files of these texts below the root, scanned."""
    for name, text in files.items():
        (root / f"{name}.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    return ListsSource(kind="lists", root=str(root), **{name: f"{name}.txt" for name in files}).scan()


def test_each_list_is_a_split_and_labels_are_names(tmp_path: Path) -> None:
    found = scan(tmp_path, train="a/1.jpg 0\na/2.jpg 1\nb/3.jpg 1\n", test="t.jpg 1\n")
    assert found.classes == ("0", "1")
    assert {split: images.paths for split, images in found.splits.items()} == {
        "train": ("a/1.jpg", "a/2.jpg", "b/3.jpg"),
        "test": ("t.jpg",),
    }
    assert found.splits["train"].labels.tolist() == [0, 1, 1]
    assert found.skipped == ()


def test_a_file_names_the_classes_and_how_many_there_are(tmp_path: Path) -> None:
    found = scan(tmp_path, train="1.jpg 0\n2.jpg 2\n", classes="ant\nbee\ncat\n")
    assert found.classes == ("ant", "bee", "cat")
    with pytest.raises(UserError, match=r"train.txt:2: label 3 is out of range: there are 3 classes"):
        scan(tmp_path, train="1.jpg 0\n2.jpg 3\n", classes="ant\nbee\ncat\n")


def test_harmless_oddities(tmp_path: Path) -> None:
    found = scan(tmp_path, train=b"\xef\xbb\xbfmy photos/1 a.jpg 0\r\n\r\n  \r\n2.jpg\t1\r\n3.jpg 1")
    assert found.splits["train"].paths == ("my photos/1 a.jpg", "2.jpg", "3.jpg")
    assert found.splits["train"].labels.tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ("a 0\nb 2\n", "labels have gaps: no list has an image of 1, but of 2; number the classes from 0 on"),
        ("a 1\nb 2\n", "no list has an image of 0, but of 2;"),
        ("a 0\nb 4\n", "no list has an image of 1, 2, 3, but of 4;"),
        ("a 7\nb 2\nc 0\n", "no list has an image of 1, 3, 4 and 2 more, but of 7;"),
        ("a 0\nb 900000000\n", "no list has an image of 1, 2, 3 and 899,999,996 more, but of 900000000;"),
    ],
)
def test_gaps_in_the_labels_are_named(tmp_path: Path, train: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        scan(tmp_path, train=train)
    assert str(caught.value).startswith(f"{tmp_path / 'train.txt'}: ")
    assert message in str(caught.value)


def test_a_label_that_another_list_has_is_no_gap(tmp_path: Path) -> None:
    assert scan(tmp_path, train="a 0\nb 2\n", val="c 1\n").classes == ("0", "1", "2")


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ("a 0\nb -1\n", "train.txt:2: label -1 is out of range: .*; images of no class belong to prepare.openset"),
        ("a 0\n\nb 1000000000\n", "train.txt:3: label 1000000000 is out of range: classes count from 0"),
        (f"a {'9' * 5000}\n", "train.txt:1: label 9"),
        ("a 0\n/b 1\n", "train.txt:2: '/b' is absolute"),
        ("\n \n", "the list has no images"),
        ("a 0\na 1\n", r"train.txt: 1 image\(s\) have two classes: 'a' \('0' and '1'\)"),
    ],
)
def test_a_bad_list_is_one_line(tmp_path: Path, train: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        scan(tmp_path, train=train)
    assert "\n" not in str(caught.value)


def test_an_image_that_a_list_names_twice_counts_once(tmp_path: Path) -> None:
    found = scan(tmp_path, train="a 0\nb 1\na 0\nc 1\na 0\n", val="a 0\n")
    assert found.splits["train"].paths == ("a", "b", "c")
    assert found.splits["train"].labels.tolist() == [0, 1, 1]
    assert found.splits["val"].paths == ("a",)
    assert [(skip.path, skip.reason) for skip in found.skipped] == [("a", "listed again in the same split")] * 2


def test_missing_files_and_files_elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "data"
    with pytest.raises(UserError, match=r"no such folder; prepare\.source\.root"):
        ListsSource(kind="lists", root=str(root), train="train.txt").scan()
    root.mkdir()
    with pytest.raises(UserError, match=r"data/train.txt: no such file"):
        ListsSource(kind="lists", root=str(root), train="train.txt").scan()
    (tmp_path / "train.txt").write_text("a 0\nb 1\n")
    (root / "val.txt").write_text("c 0\n")
    for name in ("../train.txt", str(tmp_path / "train.txt")):
        ListsSource(kind="lists", root=str(root), train=name, val="val.txt").scan()
        warnings = capsys.readouterr().err.splitlines()
        assert len(warnings) == 1
        assert "train.txt lies outside" in warnings[0]
        assert "`dvc repro` does not see when it changes" in warnings[0]
    (root / "linked.txt").symlink_to(tmp_path / "train.txt")
    ListsSource(kind="lists", root=str(root), train="linked.txt", val="../data/val.txt").scan()
    assert capsys.readouterr().err == ""


def test_places_lt_as_it_was_published() -> None:
    root = shared("lists")
    files = {split: f"Places_LT_{split}.txt" for split in ("train", "val", "test")}
    found = ListsSource(kind="lists", root=str(root), **files).scan()
    assert {split: len(images) for split, images in found.splits.items()} == {
        "train": 62_500,
        "val": 7_300,
        "test": 36_500,
    }
    assert len(found.classes) == 365
    counts = found.splits["train"].counts(365)
    assert (counts.max(), counts.min()) == (4980, 5)
    groups = shot_groups(counts, 100, 20)
    assert [(np.asarray(groups) == group).sum() for group in ("many", "medium", "few")] == [131, 163, 71]
    assert set(found.splits["val"].counts(365)) == {20}
    assert set(found.splits["test"].counts(365)) == {100}
    assert found.skipped == ()


def test_imagenet_lts_val_list_alone() -> None:
    found = ListsSource(kind="lists", root=str(shared("lists")), train="ImageNet_LT_val.txt").scan()
    assert set(found.splits["train"].counts(1000)) == {20}
    assert len(found.classes) == 1000
