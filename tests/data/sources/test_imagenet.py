"""ImageNet's folders, its flat val with either file of labels, its names, and a fresh long tail of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy.io import savemat

from ltrec.artifacts import SPLITS, Layout, read_json
from ltrec.config.prepare import PrepareSettings
from ltrec.data.image_lists import read_classes, read_list
from ltrec.data.shot_groups import ShotSettings
from ltrec.data.sources.imagenet import ImageNetSource, class_names, val_wnids
from ltrec.errors import UserError
from ltrec.stages.prepare import prepare

if TYPE_CHECKING:
    from pathlib import Path

WNIDS = ("n01440764", "n01443537", "n03126707")
NAMES = "n03126707 crane\nn01440764 tench, Tinca tinca\nn01443537 goldfish, Carassius auratus\nn02012849 crane\n"


def write(root: Path, **counts: int) -> None:
    """So many distinct files in each folder; `__` in a name stands for `/`."""
    for name, count in counts.items():
        folder = root / name.replace("__", "/")
        folder.mkdir(parents=True, exist_ok=True)
        for n in range(count):
            (folder / f"{folder.name}_{n}.JPEG").write_bytes(f"{name}{n}".encode())


def scan(root: Path, **more: Any) -> Any:
    return ImageNetSource(kind="imagenet", root=str(root), **more).scan()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three classes of four training images, and a val of two images each in class folders."""
    root = tmp_path / "data"
    write(root, **{f"train__{wnid}": 4 for wnid in reversed(WNIDS)}, **{f"val__{wnid}": 2 for wnid in WNIDS})
    return root


@pytest.fixture
def flat(root: Path) -> Path:
    """The same with a flat val of six images, of classes 2, 0, 1, 2, 0, 1."""
    for folder in (root / "val").iterdir():
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
    for number in range(1, 7):
        (root / f"val/ILSVRC2012_val_{number:08d}.JPEG").write_bytes(f"val{number}".encode())
    return root


FLAT = [(1, 2), (2, 0), (3, 1), (4, 2), (5, 0), (6, 1)]


def kaggle(root: Path) -> str:
    rows = [
        f"ILSVRC2012_val_{number:08d},{WNIDS[label]} 85 1 499 272 {WNIDS[label]} 1 2 3 4 " for number, label in FLAT
    ]
    (root / "LOC_val_solution.csv").write_text("\r\n".join(["ImageId,PredictionString", *reversed(rows)]) + "\r\n")
    return "LOC_val_solution.csv"


def devkit(root: Path) -> str:
    """As published: class numbers are in no order of ids, and groups of classes follow the classes."""
    kit = root / "ILSVRC2012_devkit_t12/data"
    kit.mkdir(parents=True)
    fields: Any = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O")]
    rows = [(1, WNIDS[1], "goldfish", 0), (2, WNIDS[2], "crane", 0), (3, WNIDS[0], "tench", 0), (4, "n01439121", "", 3)]
    savemat(kit / "meta.mat", {"synsets": np.array(rows, dtype=fields)})
    number_of = {1: 1, 2: 2, 0: 3}
    (kit / "ILSVRC2012_validation_ground_truth.txt").write_text("".join(f"{number_of[at]}\n" for _, at in FLAT))
    return "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt"


def test_labels_are_places_among_the_sorted_ids_and_val_is_test(root: Path) -> None:
    (root / "train/n01440764.tar").touch()
    found = scan(root)
    assert found.classes == WNIDS
    assert set(found.splits) == {"train", "test"}
    assert found.splits["train"].counts(3).tolist() == [4, 4, 4]
    assert found.splits["test"].paths[4] == "val/n03126707/n03126707_0.JPEG"
    assert found.splits["test"].labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert [skip.path for skip in found.skipped] == ["train/n01440764.tar"]


@pytest.mark.parametrize("labelled", [kaggle, devkit])
def test_a_flat_val_takes_its_labels_from_a_file(flat: Path, labelled: Any) -> None:
    (flat / "val/ILSVRC2012_val_00000099.JPEG").write_bytes(b"unknown")
    found = scan(flat, val_labels=labelled(flat))
    by_label = sorted(FLAT, key=lambda pair: pair[::-1])
    assert found.splits["test"].paths == tuple(f"val/ILSVRC2012_val_{number:08d}.JPEG" for number, _ in by_label)
    assert found.splits["test"].labels.tolist() == [label for _, label in by_label]
    assert [(skip.path, skip.reason.partition(" ")[2]) for skip in found.skipped] == [
        ("val/ILSVRC2012_val_00000099.JPEG", "does not say what it shows")
    ]


def test_a_flat_val_that_is_not_all_there_is_said(flat: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scan(flat, val_labels=kaggle(flat))
    assert capsys.readouterr().err == ""
    (flat / "val/ILSVRC2012_val_00000005.JPEG").unlink()
    assert len(scan(flat, val_labels=kaggle(flat)).splits["test"]) == 5
    said = capsys.readouterr().err
    assert "1 images that" in said
    assert said.endswith("are not in " + str(flat / "val") + ": ILSVRC2012_val_00000005\n")


def test_kaggles_folders_by_their_settings(tmp_path: Path) -> None:
    write(tmp_path, **{f"ILSVRC__Data__CLS-LOC__{split}__{wnid}": 2 for split in ("train", "val") for wnid in WNIDS})
    found = scan(tmp_path, train="ILSVRC/Data/CLS-LOC/train", val="ILSVRC/Data/CLS-LOC/val")
    assert found.splits["train"].paths[0] == "ILSVRC/Data/CLS-LOC/train/n01440764/n01440764_0.JPEG"
    assert len(found.splits["test"]) == 6


def test_names_and_what_tells_the_two_cranes_apart(root: Path) -> None:
    (root / "LOC_synset_mapping.txt").write_text(NAMES)
    assert scan(root, names="LOC_synset_mapping.txt").classes == (
        "tench, Tinca tinca", "goldfish, Carassius auratus", "crane",
    )  # fmt: skip
    cranes = class_names(root / "LOC_synset_mapping.txt", ("n02012849", "n03126707"))
    assert cranes == ("crane (n02012849)", "crane (n03126707)")


def test_an_annotation_file_elsewhere_is_read_with_a_warning(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "names.txt").write_text(NAMES)
    scan(root, names=str(tmp_path / "names.txt"))
    assert "so that `dvc repro` does not see when it changes" in capsys.readouterr().err


def test_mistakes_are_one_line(flat: Path) -> None:
    (flat / "other" / "tench").mkdir(parents=True)
    (flat / "short.txt").write_text("n01440764 tench\n")
    (flat / "odd.txt").write_text("n01440764 tench\ntench\n")
    for given, message in (
        ({}, "data/val: has no class folders; params.yaml: prepare.source.val_labels must name"),
        ({"val_labels": "none.csv"}, "data/none.csv: no such file"),
        ({"train": "training"}, r"data/training: no such folder; ImageNet is train/<wnid>/\*"),
        ({"val": "validation"}, "data/validation: no such folder; ImageNet is"),
        ({"train": "val"}, "data/val: its folders must be WordNet ids such as n01440764, there are none"),
        (
            {"train": "other"},
            "data/other: its folders must be WordNet ids .* 'tench' are not; {kind: folder} takes others",
        ),
        ({"names": "short.txt"}, "short.txt: has no name for 2 of 3 classes: n01443537, n03126707"),
        ({"names": "odd.txt"}, "odd.txt:2: expected `n01440764 tench, Tinca tinca`, got 'tench'"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            scan(flat, **given)
        assert "\n" not in str(caught.value)


def test_files_of_labels_that_are_none(root: Path) -> None:
    file = root / "labels"
    for text, message in (
        (
            "ImageId,PredictionString\nILSVRC2012_val_1,n01440764 1 2\nILSVRC2012_val_2,tench\n",
            "labels: row 2 is no .*, got 'tench'",
        ),
        ('ImageId,PredictionString\nILSVRC2012_val_1,"n01440764 1 2\n', "labels: cannot be read as a table"),
        ("1\n2\n", "data/meta.mat: no such file; the development kit has it"),
    ):
        file.write_text(text)
        with pytest.raises(UserError, match=message):
            val_wnids(file)
    (root / "meta.mat").write_bytes(b"no matrix")
    with pytest.raises(UserError, match=r"meta.mat: is not the development kit's"):
        val_wnids(file)
    truth = root / devkit(root)
    truth.write_text("1\n9\n")
    with pytest.raises(UserError, match=r"ground_truth.txt:2: expected a class number .* got '9'"):
        val_wnids(truth)


def test_val_of_a_class_that_train_lacks(root: Path, tmp_path: Path) -> None:
    write(root, val__n09999999=1)
    with pytest.raises(UserError, match=r"val: holds 1 class folder.* none of the 3 classes: 'n09999999'"):
        scan(root)
    write(tmp_path / "flat", train__n01440764=1)
    (tmp_path / "flat/val").mkdir()
    (tmp_path / "flat/val/ILSVRC2012_val_00000001.JPEG").touch()
    with pytest.raises(UserError, match=r"says that val/.*1.JPEG shows n03126707, which train has no folder for"):
        scan(tmp_path / "flat", val_labels=kaggle(tmp_path / "flat"))


def listed(layout: Layout) -> dict[str, list[str]]:
    classes = len(read_classes(layout.classes))
    return {split: list(read_list(layout.split_list(split), classes).paths) for split in SPLITS}


def test_without_a_long_tail_the_lists_are_full(root: Path, tmp_path: Path) -> None:
    given = {"source": {"kind": "imagenet", "root": str(root)}, "split": {"val": "test"}, "decode": False}
    prepare(PrepareSettings.model_validate(given), seed=0, shots=ShotSettings(), layout=Layout(tmp_path / "out"))
    lists = listed(Layout(tmp_path / "out"))
    on_disk = {path.relative_to(root).as_posix() for path in root.rglob("*.JPEG")}
    assert {*lists["train"], *lists["test"]} == on_disk
    assert lists["val"] == lists["test"]


def test_a_fresh_tail_of_1280_to_5_with_val_from_what_train_does_not_use(tmp_path: Path) -> None:
    # ImageNet's largest classes have 1,300 images: 20 for val leave the 1,280 of the head. Pareto by hand for C = 3:
    # q = 3^(1/6), 1.5^(1/6), 1 = 1.20094, 1.06991, 1, so the middle keeps ⌊5 + 1275 · 0.06991 / 0.20094⌋ = 448.
    root = tmp_path / "data"
    write(root, **dict(zip([f"train__{wnid}" for wnid in WNIDS], (1300, 732, 1300), strict=True)))
    write(root, **{f"val__{wnid}": 50 for wnid in WNIDS})
    given = {
        "source": {"kind": "imagenet", "root": str(root)},
        "split": {"val": 20},
        "long_tail": {"profile": "pareto", "imbalance_factor": 256, "n_max": 1280},
        "decode": False,
    }
    lists = {}
    for name, seed in (("first", 0), ("again", 0), ("other", 1)):
        layout = Layout(tmp_path / name)
        prepare(PrepareSettings.model_validate(given), seed=seed, shots=ShotSettings(), layout=layout)
        lists[name] = listed(layout)
    stats = read_json(Layout(tmp_path / "first").stats)
    assert [[entry[split] for split in SPLITS] for entry in stats["classes"]] == [
        [1280, 20, 50], [448, 20, 50], [5, 20, 50],
    ]  # fmt: skip
    assert stats["imbalance_factor"] == 256
    assert stats["origin"] == {"val": "carved from train", "test": "given"}
    assert lists["first"] == lists["again"]
    for split in ("train", "val"):
        assert set(lists["first"][split]) != set(lists["other"][split])
    for each in lists.values():
        assert set(each["val"]).isdisjoint(each["train"])
        assert all(path.startswith("train/") for path in each["val"])
