"""From a folder to lists, class names and statistics, whatever lies in it."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path
from subprocess import run as run_process
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from ltrec import artifacts
from ltrec.artifacts import SPLITS, Layout
from ltrec.config.prepare import PrepareSettings
from ltrec.data.image_lists import read_classes, read_list
from ltrec.data.shot_groups import ShotSettings
from ltrec.errors import UserError
from ltrec.stages import prepare as stage

Stats = dict[str, Any]


def write_images(root: Path, **counts: int) -> None:
    """So many distinct images in each folder; `__` in a name stands for `/`."""
    for name, count in counts.items():
        folder = root / name.replace("__", "/")
        folder.mkdir(parents=True, exist_ok=True)
        for n in range(count):
            # Name and number in the pixels, so that no two files have the same bytes.
            Image.frombytes("L", (16, 2), f"{name:>28}{n:4}".encode()[-32:]).save(folder / f"{n}.png")


def prepare(root: Path, layout: Layout, *, seed: int = 0, **settings: Any) -> Stats:
    given = {"source": {"kind": "folder", "root": str(root)}, **settings}
    stage.prepare(PrepareSettings.model_validate(given), seed=seed, shots=ShotSettings(), layout=layout)
    return dict(artifacts.read_json(layout.stats))


def listed(layout: Layout) -> dict[str, list[tuple[str, int]]]:
    classes = len(read_classes(layout.classes))
    lists = {split: read_list(layout.split_list(split), classes) for split in SPLITS}
    return {name: list(zip(each.paths, each.labels.tolist(), strict=True)) for name, each in lists.items()}


def files(layout: Layout) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in layout.stats.parent.iterdir()}


def test_a_folder_becomes_balanced_disjoint_lists_and_a_tail(root: Path, layout: Layout) -> None:
    write_images(root, c10=40, c2=40, c1=40)
    tail = {"profile": "exponential", "imbalance_factor": 16, "n_max": 32}
    stats = prepare(root, layout, split={"val": 2, "test": 3}, long_tail=tail)
    assert read_classes(layout.classes) == ("c1", "c2", "c10")
    lists = listed(layout)
    paths = [path for pairs in lists.values() for path, _ in pairs]
    assert len(set(paths)) == len(paths) == 42 + 6 + 9
    assert all(path.split("/")[0] == ("c1", "c2", "c10")[label] for pairs in lists.values() for path, label in pairs)
    assert stats["classes"] == [
        {"name": "c1", "train": 32, "val": 2, "test": 3, "shot": "medium"},
        {"name": "c2", "train": 8, "val": 2, "test": 3, "shot": "few"},
        {"name": "c10", "train": 2, "val": 2, "test": 3, "shot": "few"},
    ]
    assert stats["images"] == {"train": 42, "val": 6, "test": 9}
    assert (stats["imbalance_factor"], stats["skipped"], stats["unused"]) == (16.0, [], 120 - 57)


def test_the_digest_covers_paths_and_bytes_of_the_images_used(root: Path, layout: Layout) -> None:
    write_images(root, a=3, b=3)
    stats = prepare(root, layout)
    whole = hashlib.sha256()
    for path in ("a/0.png", "a/1.png", "a/2.png", "b/0.png", "b/1.png", "b/2.png"):
        whole.update(path.encode() + b"\0" + hashlib.sha256((root / path).read_bytes()).digest())
    assert stats["digest"] == whole.hexdigest()
    assert prepare(root, layout, seed=5)["digest"] == stats["digest"]
    Image.new("L", (1, 1)).save(root / "a" / "0.png")
    assert prepare(root, layout)["digest"] != stats["digest"]


def test_another_test_image_is_no_other_training_image(root: Path, layout: Layout) -> None:
    write_images(root, a=9, b=9)
    prepare(root, layout)
    before = files(layout)
    Image.new("L", (1, 1)).save(root / listed(layout)["test"][0][0])
    prepare(root, layout)
    changed = {name for name, content in files(layout).items() if content != before[name]}
    assert changed == {"test.digest.txt", "stats.json"}


def test_the_same_seed_gives_the_same_bytes_wherever_the_data_lies(root: Path, layout: Layout, tmp_path: Path) -> None:
    write_images(root, a=20, b=20)
    tail = {"profile": "step", "imbalance_factor": 4}
    prepare(root, layout, long_tail=tail, workers=1)
    moved = tmp_path / "moved"
    write_images(moved, b=20, a=20)
    elsewhere = Layout(tmp_path / "elsewhere")
    prepare(moved, elsewhere, long_tail=tail, workers=4)
    assert files(layout) == files(elsewhere)
    prepare(moved, elsewhere, long_tail=tail, seed=1)
    assert files(layout)["test.txt"] != files(elsewhere)["test.txt"]


SHARES = {"val": {"share": 0.2, "least": 2}, "test": {"share": 0.3, "least": 2, "most": 19}}


@pytest.mark.parametrize("split", [SHARES, {"val": 2, "test": 3}])
def test_a_renamed_class_folder_changes_no_split(root: Path, layout: Layout, split: Stats) -> None:
    write_images(root, a=20, b=20)
    prepare(root, layout, split=split, long_tail=step(imbalance_factor=4))
    before = listed(layout)
    (root / "b").rename(root / "c")
    prepare(root, layout, split=split, long_tail=step(imbalance_factor=4))
    renamed = {
        name: [(path.replace("c/", "b/"), label) for path, label in each] for name, each in listed(layout).items()
    }
    assert renamed == before


def test_a_renamed_class_that_keeps_its_place_changes_names_alone(root: Path, layout: Layout) -> None:
    write_images(root, a=20, b=20)
    prepare(root, layout, split=SHARES, cache={"short_side": 1})
    before = files(layout)
    (root / "b").rename(root / "c")
    prepare(root, layout, split=SHARES, cache={"short_side": 1})
    changed = {name for name, content in files(layout).items() if content != before[name]}
    assert changed == {"train.txt", "val.txt", "test.txt", "classes.txt", "stats.json"}
    (root / "c").rename(root / "0")
    prepare(root, layout, split=SHARES)
    assert files(layout)["train.digest.txt"] != before["train.digest.txt"], "in another order labels change"


def test_classes_are_shown_by_other_names(root: Path, layout: Layout) -> None:
    write_images(root, n01=9, n02=9, n03=2)
    split = {"val": 1, "test": 2, "small_classes": "drop"}
    prepare(root, layout, split=split)
    before = files(layout)
    source = {"kind": "folder", "root": str(root), "names": {"n02": "ant", "n01": "bee"}}
    stats = prepare(root, layout, split=split, source=source)
    assert read_classes(layout.classes) == ("bee", "ant")
    assert [entry["name"] for entry in stats["classes"]] == ["bee", "ant"]
    assert {name for name, content in files(layout).items() if content != before[name]} == {"classes.txt", "stats.json"}
    with pytest.raises(UserError) as caught:
        prepare(root, layout, source=source | {"names": {"ant": "n02"}})
    assert str(caught.value) == (
        "params.yaml: prepare.source.names: no such class: 'ant'; the source has 'n01', 'n02', 'n03'"
    )
    with pytest.raises(UserError, match="more than one is called 'n01'"):
        prepare(root, layout, source=source | {"names": {"n02": "n01"}})


def test_copies_are_drawn_together(root: Path, layout: Layout) -> None:
    write_images(root, a=9, b=9)
    for n in range(9):
        (root / "a" / f"{n} copy.png").write_bytes((root / "a" / f"{n}.png").read_bytes())
    for seed in range(5):
        assert prepare(root, layout, seed=seed, split={"val": 2, "test": 4})["duplicates_across_splits"] == 0


def test_junk_is_skipped_listed_and_said_in_one_line(
    root: Path, layout: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(root, a=6, b=6)
    (root / "a" / "notes.jpg").write_text("not a picture")
    (root / "a" / "empty.png").touch()
    cut_off = (root / "b" / "0.png").read_bytes()[:-30]
    (root / "b" / "cut off.png").write_bytes(cut_off)
    (root / "ghost").mkdir()
    (root / "README").write_text("about")
    (root / "b" / ".DS_Store").write_bytes(b"x")
    stats = prepare(root, layout)
    assert {entry["path"]: entry["reason"] for entry in stats["skipped"]} == {
        "README": "not in a class folder",
        "a/empty.png": "an empty file",
        "a/notes.jpg": "not an image",
        "b/cut off.png": "truncated",
        "ghost/": "empty class",
    }
    assert read_classes(layout.classes) == ("a", "b")
    warnings = [line for line in capsys.readouterr().err.splitlines() if "prepare: skipped" in line]
    assert len(warnings) == 1
    assert "skipped 5: README (not in a class folder), a/empty.png (an empty file)" in warnings[0]
    assert "and 2 more; all are listed in" in warnings[0]


def test_what_hangs_or_runs_programs_is_a_finding(root: Path, layout: Layout) -> None:
    write_images(root, ant=20, bee=20)
    os.mkfifo(root / "ant" / "pipe.png")
    (root / "ant" / "zero.png").symlink_to("/dev/zero")
    (root / "ant" / "ghost.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")
    lists = ["pipe.png", "zero.png"]
    found = {skip["path"]: skip["reason"] for skip in prepare(root, layout)["skipped"]}
    assert {found["ant/pipe.png"], found["ant/zero.png"]} == {"not a regular file"}
    assert found["ant/ghost.png"] == "not an image"
    (root / "listed.txt").write_text(
        "".join(f"ant/{name} 0\n" for name in [*lists, *(f"{n}.png" for n in range(20))])
        + "".join(f"bee/{n}.png 1\n" for n in range(20))
    )
    source = {"kind": "lists", "root": str(root), "train": "listed.txt"}
    found = {skip["path"]: skip["reason"] for skip in prepare(root, layout, source=source)["skipped"]}
    assert found == {"ant/pipe.png": "is a named pipe, not a file", "ant/zero.png": "is a device, not a file"}


def test_a_class_of_junk_alone_is_dropped_and_the_others_numbered_anew(root: Path, layout: Layout) -> None:
    write_images(root, a=4, c=4)
    (root / "b").mkdir()
    (root / "b" / "junk.png").write_text("junk")
    stats = prepare(root, layout)
    assert read_classes(layout.classes) == ("a", "c")
    assert {"path": "b/", "reason": "none of its 1 file(s) can be read (not an image)"} in stats["skipped"]
    assert {label for pairs in listed(layout).values() for path, label in pairs if path.startswith("c/")} == {1}


def test_without_decoding_no_image_is_opened(root: Path, layout: Layout, tmp_path: Path) -> None:
    write_images(root, a=4, b=4)
    (root / "a" / "notes.jpg").write_text("not a picture")
    (root / "a" / "0.png").chmod(0)
    stats = prepare(root, layout, decode=False)
    assert stats["skipped"] == []
    assert sum(stats["images"].values()) == 9
    # The digests are over the lists, that is over paths and labels.
    train = layout.split_list("train").read_bytes()
    assert layout.split_digest("train").read_text() == hashlib.sha256(train + b"\0").hexdigest() + "\n"
    (root / "a" / "1.png").write_bytes(b"other bytes")
    assert prepare(root, Layout(tmp_path / "again"), decode=False) == stats
    (root / "b" / "0.png").rename(root / "b" / "00.png")
    assert prepare(root, Layout(tmp_path / "renamed"), decode=False)["digest"] != stats["digest"]


def test_given_splits_are_honoured(root: Path, layout: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    write_images(root, train__a=5, train__b=1, val__a=2, val__b=1, test__a=1, test__new=2)
    stats = prepare(root, layout, split={"val": 50, "test": 50})
    lists = listed(layout)
    assert [path for path, _ in lists["val"]] == ["val/a/0.png", "val/a/1.png", "val/b/0.png"]
    assert [path for path, _ in lists["test"]] == ["test/a/0.png"]
    assert len(lists["train"]) == 6
    assert stats["skipped"] == [{"path": "new/", "reason": "no training image (2 in val and test)"}]
    assert "1 of 2 classes have no test image: 'b'" in capsys.readouterr().err


def write_lists(root: Path, **lists: list[str]) -> dict[str, Any]:
    """Lists beside the images, as settings."""
    for split, lines in lists.items():
        (root / f"{split}.txt").write_text("".join(f"{line}\n" for line in lines))
    source = {"kind": "lists", "root": str(root), **{split: f"{split}.txt" for split in lists}}
    return {"source": source, "split": {"val": 1, "test": 1}}


def test_images_that_a_list_names_but_are_not_there_are_listed_together(
    root: Path, layout: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(root, a=9, b=9)
    gone = [f"gone/{n}.png 1" for n in range(5)]
    lists = write_lists(root, train=[f"{name}/{n}.png {label}" for label, name in enumerate("ab") for n in range(9)])
    stats = prepare(root, layout, **lists)
    assert (stats["images"], stats["skipped"]) == ({"train": 14, "val": 2, "test": 2}, [])
    stats = prepare(root, layout, **write_lists(root, train=[f"a/{n}.png {n % 2}" for n in range(9)] + gone))
    assert [skip["path"] for skip in stats["skipped"]] == [f"gone/{n}.png" for n in range(5)]
    assert {skip["reason"] for skip in stats["skipped"]} == {"cannot be read (No such file or directory)"}
    assert "warning: prepare: skipped 5: gone/0.png (cannot be read" in (said := capsys.readouterr().err)
    assert "and 2 more; all are listed in" in said
    with pytest.raises(UserError, match=r"data: no image could be read \(gone/x.png: .* and 3 more\)"):
        prepare(root, layout, **write_lists(root, train=["gone/x.png 0", *gone]) | {"split": {}})


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_given_split_whose_images_are_all_gone_is_not_carved_anew(root: Path, layout: Layout, split: str) -> None:
    write_images(root, a=9, b=9)
    lines = {
        "train": [f"{name}/{n}.png {label}" for label, name in enumerate("ab") for n in range(7)],
        "val": ["a/7.png 0", "b/7.png 1"],
        "test": ["a/8.png 0", "b/8.png 1"],
    }
    lists = write_lists(root, **lines | {split: [f"gone/{n}.png {n % 2}" for n in range(5)]})
    left = "of the given val" if split == "val" else "of the given test" if split == "test" else "0 class"
    message = rf"data: {left}.* 5 file\(s\) skipped: gone/0.png cannot be read .* and 2 more$"
    with pytest.raises(UserError, match=message):
        prepare(root, layout, **lists)
    assert not layout.stats.exists()


@pytest.mark.parametrize("decode", [True, False])
def test_a_given_split_that_loses_its_classes_is_not_carved_anew(root: Path, layout: Layout, *, decode: bool) -> None:
    write_images(root, train__a=9, train__b=9, train__c=9, test__c=2)
    with pytest.raises(UserError, match=r"data: of the given test split no image is left$"):
        prepare(root, layout, decode=decode, openset={"classes": ("c",)})
    (root / "train" / "c").rename(root / "train" / "d")
    with pytest.raises(UserError, match=r"test split no image is left; 1 class\(es\) skipped: c/ no training image"):
        prepare(root, layout, decode=decode)


@pytest.mark.parametrize("name", ["bad\nclass", os.fsdecode(b"caf\xe9"), " "])
def test_a_class_name_that_no_list_can_hold(root: Path, layout: Layout, name: str) -> None:
    write_images(root, a=9, b=9)
    (root / "b").rename(root / name)
    with pytest.raises(UserError, match="data: a class name must be UTF-8 text in one line, got '") as caught:
        prepare(root, layout)
    assert "\n" not in str(caught.value)


def test_classes_have_different_names(root: Path, layout: Layout) -> None:
    write_images(root, a=9)
    categories = [{"id": number, "name": name} for number, name in enumerate(["x", "x", "x (1)"])]
    images = [{"id": number, "file_name": f"a/{number}.png"} for number in range(9)]
    annotations = [{"image_id": number, "category_id": number % 3} for number in range(9)]
    content = {"categories": categories, "images": images, "annotations": annotations}
    (root / "train.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"more than one is called 'x \(1\)'"):
        prepare(root, layout, source={"kind": "inaturalist", "root": str(root), "train": "train.json"})


def test_where_too_few_images_are_left_it_is_said_what_was_skipped(root: Path, layout: Layout) -> None:
    write_images(root, a=9, b=1)
    lists = write_lists(root, train=[f"a/{n}.png 0" for n in range(9)] + [f"b/{n}.png 1" for n in range(5)])
    with pytest.raises(
        UserError, match=r"small_classes: keep or drop; 4 file\(s\) skipped: b/1.png cannot be read .* 1 more$"
    ):
        prepare(root, layout, **lists)
    lists["split"]["small_classes"] = "drop"
    with pytest.raises(UserError, match=r"needs two; 1 class\(es\) skipped: 1/ too few .*; 4 file\(s\) skipped: b/1"):
        prepare(root, layout, **lists)


@pytest.mark.parametrize("decode", [True, False])
def test_an_image_that_two_lists_name_is_said(
    root: Path, layout: Layout, capsys: pytest.CaptureFixture[str], *, decode: bool
) -> None:
    write_images(root, a=5, b=5)
    train = ["a/0.png 0", "a/1.png 0", "a/2.png 0", "b/0.png 1", "b/1.png 1"]
    lists = write_lists(root, train=train, val=["a/3.png 0", "b/3.png 1"], test=["a/4.png 0", "b/0.png 1"])
    assert prepare(root, layout, decode=decode, **lists)["duplicates_across_splits"] == 1
    how = "byte for byte " if decode else ""
    assert f"1 image(s) lie {how}in more than one split" in (said := capsys.readouterr().err)
    assert "b/0.png in train = b/0.png in test" in said


def test_supercategories_stand_beside_the_classes_that_stay(root: Path, layout: Layout) -> None:
    write_images(root, a=4, b=4)
    images = [{"id": f"{name}{n}", "file_name": f"{name}/{n}.png"} for name in "ab" for n in range(4)]
    content = {
        "images": images,
        "annotations": [{"image_id": each["id"], "category_id": 3 + (each["id"][0] == "b")} for each in images],
        "categories": [
            {"id": 2, "name": "none", "supercategory": "X"},
            {"id": 3, "name": "a", "supercategory": "Y"},
            {"id": 4, "name": "b", "supercategory": "Z"},
        ],
    }
    (root / "train.json").write_text(json.dumps(content))
    stats = prepare(root, layout, source={"kind": "inaturalist", "root": str(root), "train": "train.json"})
    assert stats["classes"] == [
        {"name": "a", "supercategory": "Y", "train": 2, "val": 1, "test": 1, "shot": "few"},
        {"name": "b", "supercategory": "Z", "train": 2, "val": 1, "test": 1, "shot": "few"},
    ]
    assert stats["skipped"] == [{"path": "none/", "reason": "empty class"}]


def test_a_missing_or_empty_split_is_carved_from_train(
    root: Path, layout: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(root, train__a=8, train__b=6, test__a=1, test__b=1)
    (root / "val").mkdir()
    stats = prepare(root, layout, split={"val": 2, "test": 50})
    assert stats["images"] == {"train": 10, "val": 4, "test": 2}
    assert all(path.startswith("train/") for path, _ in listed(layout)["val"])
    assert "prepare: the data has no val split: each class of train gives 2 for val" in capsys.readouterr().err
    assert stats["origin"] == {"val": "carved from train", "test": "given"}


def test_val_may_list_the_test_images(root: Path, layout: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    write_images(root, train__a=8, train__b=6, test__a=3, test__b=1)
    (root / "test" / "a" / "copy.png").write_bytes((root / "train" / "a" / "0.png").read_bytes())
    stats = prepare(root, layout, split={"val": "test", "test": 50})
    found = files(layout)
    assert found["val.txt"] == found["test.txt"]
    assert found["val.digest.txt"] == found["test.digest.txt"]
    assert stats["images"] == {"train": 14, "val": 5, "test": 5}
    assert stats["origin"] == {"val": "the test images", "test": "given"}
    # The copy of a training image is found once; that val is test was asked for.
    assert stats["duplicates_across_splits"] == 1
    warnings = [line for line in capsys.readouterr().err.splitlines() if "val lists the test images" in line]
    assert len(warnings) == 1
    assert "champion will be chosen on test" in warnings[0]
    whole = hashlib.sha256()
    for path in sorted(str(file.relative_to(root)) for file in root.rglob("*.png")):
        whole.update(path.encode() + b"\0" + hashlib.sha256((root / path).read_bytes()).digest())
    assert stats["digest"] == whole.hexdigest()


def test_a_test_split_is_carved_for_both(root: Path, layout: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    write_images(root, a=8, b=6)
    stats = prepare(root, layout, split={"val": "test", "test": 2})
    assert stats["images"] == {"train": 10, "val": 4, "test": 4}
    assert stats["origin"] == {"val": "the test images", "test": "carved from train"}
    assert "prepare: the data has no test split: each class of train gives 2 for test" in capsys.readouterr().err


def test_a_val_of_the_datas_own_goes_unused_if_test_serves(
    root: Path, layout: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(root, train__a=3, train__b=3, val__a=2, val__b=1, test__a=1, test__b=1)
    assert prepare(root, layout, split={"val": "test"})["images"] == {"train": 6, "val": 2, "test": 2}
    assert "the 3 val images of the data go unused" in capsys.readouterr().err


def test_the_literatures_counts_need_its_val(root: Path, layout: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    # CIFAR-10-LT in small: 50 images a class, of which the head keeps all.
    write_images(root, train__a=50, train__b=50, train__c=50, test__a=2, test__b=2, test__c=2)
    tail = {"profile": "exponential", "imbalance_factor": 25, "n_max": 50}
    stats = prepare(root, layout, split={"val": "test"}, long_tail=tail)
    assert [entry["train"] for entry in stats["classes"]] == [50, 10, 2]
    assert "fewer training images" not in capsys.readouterr().err
    stats = prepare(root, layout, split={"val": 1}, long_tail=tail)
    assert [(entry["train"], entry["val"]) for entry in stats["classes"]] == [(49, 1), (10, 1), (2, 1)]
    assert "'a' (49 of 50); val took 1 of each class before" in capsys.readouterr().err


def test_a_class_short_of_its_place_in_the_tail_is_said(
    root: Path, layout: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(root, a=40, b=12)
    stats = prepare(root, layout, split={"val": 1, "test": 1}, long_tail=step(n_max=30, imbalance_factor=2))
    assert [entry["train"] for entry in stats["classes"]] == [30, 10]
    assert "1 of 2 classes have fewer training images" in (said := capsys.readouterr().err)
    assert "'b' (10 of 15)" in said


def step(**given: Any) -> Stats:
    return {"profile": "step", **given}


def test_copies_across_splits_are_said(root: Path, layout: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    write_images(root, train__a=2, train__b=2, val__a=1, val__b=1, test__a=1, test__b=1)
    (root / "test" / "a" / "copy.png").write_bytes((root / "train" / "a" / "0.png").read_bytes())
    (root / "train" / "a" / "twice.png").write_bytes((root / "train" / "a" / "1.png").read_bytes())
    assert prepare(root, layout)["duplicates_across_splits"] == 1
    assert "train/a/0.png in train = test/a/copy.png in test" in capsys.readouterr().err


def test_unknown_classes_go_to_val_and_test(root: Path, layout: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    write_images(root, a=9, b=9, odd=10)
    (root / "odd" / "cut off.png").write_bytes((root / "odd" / "0.png").read_bytes()[:-30])
    split = {"val": 1, "test": 2}
    stats = prepare(root, layout, split=split, openset={"classes": ("odd",), "val": 0.3})
    assert read_classes(layout.classes) == ("a", "b")
    val, test = (read_list(layout.split_list(split), 2, unknown=True) for split in ("val", "test"))
    assert val.labels.tolist() == [0, 1] + [-1] * 3
    assert test.labels.tolist() == [0, 0, 1, 1] + [-1] * 7
    assert {path.split("/")[0] for path in val.paths[2:] + test.paths[4:]} == {"odd"}
    assert {"path": "odd/cut off.png", "reason": "truncated"} in stats["skipped"]
    assert stats["unknown"] == {"val": 3, "test": 7}
    assert stats["images"] == {"train": 12, "val": 2, "test": 4}
    assert [entry["name"] for entry in stats["classes"]] == ["a", "b"]
    said = " ".join(capsys.readouterr().err.split())
    assert "train 12, val 2, test 4 images, 3 unknown in val, 7 unknown in test, imbalance factor" in said
    before = files(layout)
    Image.new("L", (1, 1)).save(root / test.paths[-1])
    prepare(root, layout, split=split, openset={"classes": ("odd",), "val": 0.3})
    changed = {name for name, content in files(layout).items() if content != before[name]}
    assert changed == {"test.digest.txt", "stats.json"}, "unknown images count in the digests"


def test_a_published_list_of_unknown_images(root: Path, layout: Layout) -> None:
    write_images(root, train__a=5, train__b=5, val__a=1, val__b=1, test__a=1, test__b=1, open=4)
    (root / "open" / "0.png").write_bytes((root / "train" / "a" / "0.png").read_bytes())
    (root / "open").rename(root / ".open")
    lines = "".join(f".open/{n}.png 999\n" for n in range(4)) + "test/a/missing.png 0\n"
    (root / "ImageNet_LT_open.txt").write_text(lines)
    given = {"list": "ImageNet_LT_open.txt", "val": 0.0}
    stats = prepare(root, layout, openset=given)
    assert read_list(layout.split_list("test"), 2, unknown=True).labels.tolist() == [0, 1, -1, -1, -1, -1]
    assert read_list(layout.split_list("val"), 2).labels.tolist() == [0, 1]
    assert stats["unknown"] == {"val": 0, "test": 4}
    assert stats["duplicates_across_splits"] == 1
    assert [entry["path"] for entry in stats["skipped"]] == ["test/a/missing.png"]


def test_an_open_set_that_leaves_too_little_is_refused(root: Path, layout: Layout) -> None:
    write_images(root, a=9, b=9)
    for classes in (("a",), ("a", "b")):
        with pytest.raises(UserError, match="a classifier needs two"):
            prepare(root, layout, openset={"classes": classes})
    (root / "none.txt").write_text("gone.png -1\n")
    with pytest.raises(UserError, match=r"prepare\.openset: there is no unknown image that can be read"):
        prepare(root, layout, openset={"list": "none.txt"})
    assert not layout.stats.exists()


def test_classes_too_small_to_split_are_named_with_what_helps(root: Path, layout: Layout) -> None:
    write_images(root, a=9, b=2, c=1)
    with pytest.raises(UserError) as caught:
        prepare(root, layout, split={"val": 1, "test": 2})
    assert str(caught.value) == (
        "params.yaml: prepare.split: too few images to split in 2 of 3 classes: 'b' (2), 'c' (1); a class needs 4"
        " (val 1, test 2, 1 or more for train): ask for less, add images, or set small_classes: keep or drop"
    )
    with pytest.raises(UserError, match=r"needs 3 \(val 0.1, test 0.2"):
        prepare(root, layout)


def test_classes_too_small_to_split_can_be_dropped(root: Path, layout: Layout) -> None:
    write_images(root, a=9, b=2, c=5)
    stats = prepare(root, layout, split={"val": 1, "test": 2, "small_classes": "drop"})
    assert read_classes(layout.classes) == ("a", "c")
    assert stats["skipped"] == [{"path": "b/", "reason": "too few images to split (2; 4 are needed)"}]
    assert stats["images"] == {"train": 6 + 2, "val": 2, "test": 4}


def test_classes_too_small_to_split_can_stay_in_train(
    root: Path, layout: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(root, a=30, b=4, c=1, d=8)
    stats = prepare(root, layout, split={"val": 1, "test": 3, "small_classes": "keep"})
    assert {entry["name"]: (entry["train"], entry["val"], entry["test"]) for entry in stats["classes"]} == {
        "a": (26, 1, 3), "b": (4, 0, 0), "c": (1, 0, 0), "d": (4, 1, 3),
    }  # fmt: skip
    assert stats["not_tested"] == ["b", "c"]
    assert stats["skipped"] == []
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("2 of 4 classes have no val and no test image: 'b', 'c'") == 1
    assert "they are not tested" in said
    assert "each class of train gives 3 for test and 1 for val" in said
    with pytest.raises(UserError, match="too few images to split in 4 of 4 classes"):
        prepare(root, layout, split={"val": 50, "test": 1, "small_classes": "keep"})


def test_with_shares_nobody_is_stopped_by_a_small_class(root: Path, layout: Layout) -> None:
    write_images(root, a=60, b=5, c=1)
    given = {"val": {"share": 0.2, "least": 2}, "test": {"share": 0.2, "least": 3}}
    assert prepare(root, layout, split=given)["not_tested"] == ["b", "c"]
    with pytest.raises(UserError, match=r"a class needs 6 \(val 2 or more, test 3 or more, 1 or more for train\)"):
        prepare(root, layout, split=given | {"small_classes": "error"})


def test_copies_alone_are_too_few_to_split(root: Path, layout: Layout) -> None:
    write_images(root, a=30, b=1)
    for n in range(1, 20):
        (root / "b" / f"{n}.png").write_bytes((root / "b" / "0.png").read_bytes())
    with pytest.raises(UserError, match=r"'b' \(20 that belong together as 1\); a class needs 3"):
        prepare(root, layout, split={"val": 1, "test": 1})


def test_a_val_that_decides_by_single_images_is_said(
    root: Path, layout: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(root, a=20, b=20)
    prepare(root, layout, split={"val": 3, "test": 1})
    said = capsys.readouterr().err
    assert "val has fewer than 5 images in 2 of 2 classes" in said
    assert "by up to 33 points" in said
    assert "may be luck" in said
    prepare(root, layout, split={"val": 5, "test": 1})
    assert "may be luck" not in capsys.readouterr().err


def test_groups_are_not_torn_and_stats_say_so(root: Path, layout: Layout) -> None:
    write_images(root, a=40, b=24)
    split = {"val": {"share": 0.2, "least": 4}, "test": 4, "group": r"(\d)\.png"}
    stats = prepare(root, layout, split=split)
    assert stats["groups"] == {"by": "regex", "number": 10, "images": 64, "largest": 7, "in_several_splits": 0}
    digits = [{path[-5] for path, _ in each} for each in listed(layout).values()]
    assert sum(map(len, digits)) == 10
    table = "".join(f"{name}/{n}.png,{name},{n // 4}\n" for name in "ab" for n in range(24))
    (root / "images.csv").write_text("path,label,seq\n" + table)
    source = {"kind": "csv", "root": str(root), "file": "images.csv"}
    stats = prepare(root, layout, source=source, split=split | {"group": {"by": "column", "column": "seq"}})
    assert stats["groups"] == {"by": "column", "number": 6, "images": 48, "largest": 8, "in_several_splits": 0}
    with pytest.raises(UserError, match="has no column 'sequence'"):
        prepare(root, layout, source=source, split=split | {"group": {"by": "column", "column": "sequence"}})


def test_bad_input_leaves_earlier_lists_untouched(root: Path, layout: Layout, tmp_path: Path) -> None:
    write_images(root, a=9, b=9)
    prepare(root, layout)
    before = files(layout)
    write_images(tmp_path / "one", a=9)
    write_images(tmp_path / "small", a=9, b=1)
    (tmp_path / "junk" / "a").mkdir(parents=True)
    (tmp_path / "junk" / "a" / "1.png").write_text("junk")
    for name, message in {
        "missing": "no such folder; `ltrec data digits`",
        "one": "1 class.* a classifier needs two",
        "small": "too few images to split",
        "junk": r"no image could be read \(a/1.png: not an image\)",
    }.items():
        with pytest.raises(UserError, match=message):
            prepare(tmp_path / name, layout)
    assert files(layout) == before


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_a_failure_while_writing_leaves_earlier_lists_untouched(
    root: Path, layout: Layout, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    write_images(root, a=9, b=9)
    prepare(root, layout)
    before = files(layout)

    def fail(_images: object) -> str:
        monkeypatch.undo()
        raise failure

    write_images(root, c=9)
    with monkeypatch.context() as patched:
        patched.setattr(stage, "list_text", fail)
        with pytest.raises(type(failure)):
            prepare(root, layout)
    assert files(layout) == before


@pytest.mark.parametrize("written", range(10))
def test_a_full_disk_at_any_file_leaves_earlier_lists_untouched(
    root: Path, layout: Layout, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    write_images(root, a=9, b=9)
    prepare(root, layout)
    before = files(layout)
    write_text, calls = Path.write_text, []

    def full(self: Path, *args: Any, **named: Any) -> int:
        calls.append(self)
        if len(calls) > written:
            raise OSError(28, "No space left on device")
        return write_text(self, *args, **named)

    write_images(root, c=9)
    monkeypatch.setattr(Path, "write_text", full)
    if written < 9:
        with pytest.raises(OSError, match="No space left"):
            prepare(root, layout)
        assert files(layout) == before
    else:  # there are nine files
        prepare(root, layout)
        assert files(layout) != before


def test_run_takes_its_part_of_the_parameters(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(root, a=9, b=9)
    monkeypatch.chdir(tmp_path)
    params: Any = SimpleNamespace(
        seed=0, prepare=PrepareSettings(), evaluate=SimpleNamespace(shots=ShotSettings(many_above=6, few_below=2))
    )
    stage.run(params)
    stats = json.loads((tmp_path / "artifacts" / "prepare" / "stats.json").read_text())
    assert [entry["shot"] for entry in stats["classes"]] == ["many", "many"]
    assert stats["images"] == {"train": 14, "val": 2, "test": 2}


def test_run_says_what_left_the_splits(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(root, a=30, b=30)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)

    def run(**split: Any) -> str:
        settings = PrepareSettings.model_validate({"split": split or SHARES})
        stage.run(SimpleNamespace(seed=0, prepare=settings, evaluate=SimpleNamespace(shots=ShotSettings())))  # type: ignore[arg-type]
        return capsys.readouterr().err

    run()
    assert "images left" not in run()
    first = listed(Layout())
    write_images(root, a=36, b=33, c=20)
    assert "images left" not in run(), "between floor and cap, images that come move none"
    for split in ("val", "test"):
        assert {path for path, _ in first[split]} <= {path for path, _ in listed(Layout())[split]}
    gone = first["test"][0][0]
    (root / gone).unlink()
    assert "1 of" in run()
    assert "images left" not in run()
    assert "of them into train" in run(val=1, test=1)
    monkeypatch.setenv("DVC_ROOT", str(root))
    assert "images left" not in run(), "an experiment elsewhere has no memory"


@pytest.mark.slow
def test_importing_the_settings_is_light() -> None:
    heavy = "{'torch', 'torchvision', 'sklearn', 'pandas', 'mlflow', 'matplotlib', 'scipy'}"
    code = f"import sys, ltrec.stages.prepare, ltrec.data.downloads.digits; print(sorted({heavy} & set(sys.modules)))"
    done = run_process([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
