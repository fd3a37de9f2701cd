"""What counts as a class, a split and an image when folders are scanned."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, get_args

import pytest

from ltrec.data.image_lists import list_text, read_list
from ltrec.data.sources.folder import FolderSource, scan_folder
from ltrec.data.sources.imagefolder import ImageFolderSource
from ltrec.errors import UserError


def touch(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"image")


def test_classes_in_natural_order_and_images_at_any_depth(tmp_path: Path) -> None:
    touch(tmp_path, "10/a.jpg", "2/b.jpg", "2/day 1/ä c.jpg", "2/a.jpg", "Zebra/x", "ant/x", "1/.hidden", "1/y.gif")
    found = FolderSource(root=str(tmp_path)).scan()
    assert found.classes == ("1", "2", "10", "ant", "Zebra")
    train = found.splits["train"]
    assert train.paths == ("1/y.gif", "2/a.jpg", "2/b.jpg", "2/day 1/ä c.jpg", "10/a.jpg", "ant/x", "Zebra/x")
    assert train.labels.tolist() == [0, 1, 1, 1, 2, 3, 4]
    assert set(found.splits) == {"train"}
    assert found.skipped == ()


def test_litter_is_passed_over_and_strays_are_listed(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png", "a/Thumbs.db", "a/.DS_Store", ".git/x", "__MACOSX/a/1.png", "a/@eaDir/1.png")
    touch(tmp_path, "desktop.ini", "labels.csv", "b/1.png")
    found = scan_folder(tmp_path)
    assert found.classes == ("a", "b")
    assert found.splits["train"].paths == ("a/1.png", "b/1.png")
    assert [(skip.path, skip.reason) for skip in found.skipped] == [("labels.csv", "not in a class folder")]


def test_split_folders_are_honoured(tmp_path: Path) -> None:
    touch(tmp_path, "train/b/1.png", "train/a/1.png", "val/a/2.png", "test/c/3.png", "val/readme.txt")
    found = scan_folder(tmp_path)
    assert found.classes == ("a", "b", "c")
    assert {split: images.paths for split, images in found.splits.items()} == {
        "train": ("train/a/1.png", "train/b/1.png"),
        "val": ("val/a/2.png",),
        "test": ("test/c/3.png",),
    }
    assert found.splits["test"].labels.tolist() == [2]
    assert [skip.path for skip in found.skipped] == ["val/readme.txt"]


def test_a_class_may_be_called_train_among_others(tmp_path: Path) -> None:
    touch(tmp_path, "train/1.png", "bus/1.png")
    assert scan_folder(tmp_path).classes == ("bus", "train")


@pytest.mark.parametrize("others", [["valid"], ["val", "cats"], ["test", "validation"]])
def test_split_folders_beside_others_are_ambiguous(tmp_path: Path, others: list[str]) -> None:
    touch(tmp_path, "train/a/1.png", *(f"{other}/a/1.png" for other in others))
    with pytest.raises(UserError, match="name them train, val and test"):
        scan_folder(tmp_path)


def test_splits_without_train_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "val/a/1.png", "test/a/1.png")
    with pytest.raises(UserError, match="has folders test, val, but no train"):
        scan_folder(tmp_path)


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    touch(tmp_path, "store/1.png", "data/a/own.png", "data/b/x.png")
    root = tmp_path / "data"
    (root / "a" / "linked.png").symlink_to(tmp_path / "store" / "1.png")
    (root / "c").symlink_to(tmp_path / "store")
    (root / "a" / "broken.png").symlink_to(tmp_path / "nowhere")
    (root / "b" / "again").symlink_to(root / "b")
    os.mkfifo(root / "b" / "pipe")
    found = scan_folder(root)
    assert found.splits["train"].paths == ("a/linked.png", "a/own.png", "b/x.png", "c/1.png")
    assert {skip.path: skip.reason for skip in found.skipped} == {
        "a/broken.png": "a broken link",
        "b/again": "a link to a folder above it",
        "b/pipe": "not a regular file",
    }


def test_names_that_a_list_cannot_hold(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png", "a/two\nlines.png", "b/1.png")
    (tmp_path / "b" / os.fsdecode(b"latin\xe9.png")).write_bytes(b"image")
    found = scan_folder(tmp_path)
    assert found.splits["train"].paths == ("a/1.png", "b/1.png")
    assert {skip.path for skip in found.skipped} == {"a/two\\nlines.png", "b/latin\\udce9.png"}
    touch(tmp_path, "C:/1.png", "\\cat/1.png", "b/in\nner/1.png", "b/blank /1.png", " c/ 1 .png ")
    found = scan_folder(tmp_path)
    assert found.splits["train"].paths == (" c/ 1 .png ", "a/1.png", "b/1.png", "b/blank /1.png")
    reasons = {skip.path: skip.reason for skip in found.skipped}
    assert reasons["C:/1.png"] == "'C:/1.png' is absolute; paths are relative to the source's root"
    assert reasons.keys() >= {"\\cat/1.png", "b/in\\nner/1.png"}
    (tmp_path / "list").write_text(list_text(found.splits["train"]), encoding="utf-8", newline="\n")
    assert read_list(tmp_path / "list", len(found.classes)).paths == found.splits["train"].paths
    (tmp_path / "a" / "loop.png").symlink_to("loop.png")
    assert {skip.path: skip.reason for skip in scan_folder(tmp_path).skipped}["a/loop.png"] == "a broken link"


ALIKE = ("Cat", "cat", "CAT ", "caf\u00e9", "cafe\u0301", "dog")


@pytest.mark.parametrize("kind", [FolderSource, ImageFolderSource])
def test_class_folders_alike_are_said_and_joined_on_request(
    kind: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    touch(tmp_path, *(f"{name}/{n}.png" for n, name in enumerate(ALIKE)))
    name = get_args(kind.model_fields["kind"].annotation)[0]
    found = kind(kind=name, root=str(tmp_path)).scan()
    assert set(found.classes) == set(ALIKE)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert "prepare.source.join_alike: true joins them" in said[0]
    assert all(f"'{each}'" in said[0] for each in ("Cat", "cat", "CAT "))
    assert r"'caf\xe9'" in said[0], "what looks the same is spelt out"
    assert r"'cafe\u0301'" in said[0]
    assert "dog" not in said[0]
    found = kind(kind=name, root=str(tmp_path), join_alike=True).scan()
    assert len(found.classes) == 3
    labels = dict(zip(found.splits["train"].paths, found.splits["train"].labels.tolist(), strict=True))
    assert labels["Cat/0.png"] == labels["cat/1.png"] == labels["CAT /2.png"] != labels["dog/5.png"]
    assert labels["caf\u00e9/3.png"] == labels["cafe\u0301/4.png"]
    assert "are one class each" in capsys.readouterr().err


def test_folders_alike_in_two_splits_are_one_class_on_request(tmp_path: Path) -> None:
    touch(tmp_path, "train/Cat/1.png", "train/dog/1.png", "test/cat/2.png", "test/Dog/2.png")
    assert FolderSource(root=str(tmp_path)).scan().classes == ("Cat", "cat", "Dog", "dog")
    found = FolderSource(root=str(tmp_path), join_alike=True).scan()
    assert found.classes == ("Cat", "Dog")
    assert [found.splits[split].labels.tolist() for split in ("train", "test")] == [[0, 1], [0, 1]]


def test_a_hidden_class_folder_with_images_is_mentioned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    touch(tmp_path, "C#/1.png", "Go/1.png", ".NET/1.JPG", ".git/config", ".hidden.png")
    assert scan_folder(tmp_path).classes == ("C#", "Go")
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert "1 hidden folder(s) with images are no classes" in said[0]
    assert str(tmp_path / ".NET") in said[0]
    (tmp_path / ".NET").rename(tmp_path / "NET")
    assert scan_folder(tmp_path).classes == ("C#", "Go", "NET")
    assert not capsys.readouterr().err
    touch(tmp_path / "split", "train/a/1.png", "val/a/2.png", "val/.b/1.heic")
    scan_folder(tmp_path / "split")
    assert str(Path("val", ".b")) in capsys.readouterr().err


def test_no_data_names_the_way_to_get_some(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder; `ltrec data digits` writes sample data"):
        scan_folder(tmp_path / "data")
    touch(tmp_path, "file")
    with pytest.raises(UserError, match="is a file"):
        scan_folder(tmp_path / "file")
    with pytest.raises(UserError, match="has no class folders; `ltrec data digits`"):
        scan_folder(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "file").unlink()
    with pytest.raises(UserError, match="its class folders are empty; `ltrec data digits`"):
        scan_folder(tmp_path)
