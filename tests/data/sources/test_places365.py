"""Places365 by its lists and by its folders, and a fresh long tail of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError

from ltrec.artifacts import SPLITS, Layout, read_json
from ltrec.config.prepare import PrepareSettings
from ltrec.data.image_lists import read_list
from ltrec.data.shot_groups import ShotSettings
from ltrec.data.sources.places365 import Places365Source, categories
from ltrec.errors import UserError
from ltrec.stages.prepare import prepare

if TYPE_CHECKING:
    from pathlib import Path

# As published, so that a class may lie below another and sort otherwise than by its name.
CATEGORIES = "/a/airfield 0\n/b/bakery/shop 1\n/b/balcony 2\n"
TRAIN = "/b/bakery/shop/00000002.jpg 1\n/a/airfield/00000001.jpg 0\n/b/balcony/00000003.jpg 2\n"
VAL = "Places365_val_00000001.jpg 2\nPlaces365_val_00000002.jpg 0\nPlaces365_val_00000003.jpg 1\n"


def scan(root: Path, **more: Any) -> Any:
    return Places365Source(kind="places365", root=str(root), **more).scan()


def touch(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(path.encode())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    for folder in ("data_256_standard", "val_256"):
        (root / folder).mkdir(parents=True)
    (root / "categories_places365.txt").write_text(CATEGORIES)
    (root / "places365_train_standard.txt").write_text(TRAIN)
    (root / "places365_val.txt").write_text(VAL)
    return root


def test_lists_with_the_folders_that_their_paths_are_in(root: Path) -> None:
    found = scan(root)
    assert found.classes == ("airfield", "bakery/shop", "balcony")
    assert set(found.splits) == {"train", "test"}
    assert found.splits["train"].paths == (
        "data_256_standard/b/bakery/shop/00000002.jpg",
        "data_256_standard/a/airfield/00000001.jpg",
        "data_256_standard/b/balcony/00000003.jpg",
    )
    assert found.splits["train"].labels.tolist() == [1, 0, 2]
    assert found.splits["test"].paths[0] == "val_256/Places365_val_00000001.jpg"
    assert found.splits["test"].labels.tolist() == [2, 0, 1]


def test_an_image_that_a_list_names_twice_counts_once(root: Path) -> None:
    (root / "places365_train_standard.txt").write_text(TRAIN + TRAIN)
    found = scan(root)
    assert len(found.splits["train"]) == len(found.skipped) == 3


def test_folders_are_inside_of_the_root(root: Path) -> None:
    assert scan(root, val="./val_256/").splits["test"].paths[0] == "val_256/Places365_val_00000001.jpg"
    for outside in ("/val_256", "../val_256"):
        with pytest.raises(ValidationError, match="source's root"):
            scan(root, val=outside)


def test_the_large_images_by_their_settings(root: Path) -> None:
    for small, large in (("data_256_standard", "data_large_standard"), ("val_256", "val_large")):
        (root / small).rename(root / large)
    with pytest.raises(UserError, match=r"data_256_standard: no such folder; params.yaml: prepare.source.train names"):
        scan(root)
    found = scan(root, train="data_large_standard", val="val_large")
    assert found.splits["train"].paths[1] == "data_large_standard/a/airfield/00000001.jpg"


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("places365_train_standard.txt", "/a/airfield/1.jpg 0\n/a/x.jpg 3\n", r":2: label 3 is out of range: .* 0 … 2"),
        ("places365_train_standard.txt", "/a/airfield/1.jpg\n", ":1: expected `relative/path label`, got 'data"),
        ("places365_train_standard.txt", "/../../secret.jpg 0\n", ":1: .* leaves the source's root"),
        ("places365_val.txt", "a.jpg -1\n", ":1: label -1 is out of range"),
        (
            "categories_places365.txt",
            "/a/airfield 0\n/b/balcony 2\n",
            ":2: expected `/a/airfield 1`, got '/b/balcony 2",
        ),
        ("categories_places365.txt", "/a/air 0\n/b/air 1\n", "has 'air' twice"),
        ("categories_places365.txt", "\n", "names no class"),
    ],
)
def test_lines_that_are_wrong(root: Path, file: str, text: str, message: str) -> None:
    (root / file).write_text(text)
    with pytest.raises(UserError, match=f"{file}.*{message}") as caught:
        scan(root)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("file", ["categories_places365.txt", "places365_val.txt"])
def test_a_list_that_is_missing(root: Path, file: str) -> None:
    (root / file).unlink()
    with pytest.raises(UserError, match=f"{file}: no such file"):
        scan(root)


def test_class_folders(tmp_path: Path) -> None:
    touch(tmp_path, "train/balcony/1.jpg", "train/bakery-shop/1.jpg", "val/balcony/2.jpg", "val/bakery-shop/2.jpg")
    touch(tmp_path, "train/airfield/1.jpg", "val/airfield/2.jpg")
    assert scan(tmp_path).classes == ("airfield", "bakery-shop", "balcony")
    # With the published categories the labels are theirs, whatever the folders' order.
    (tmp_path / "categories_places365.txt").write_text("/b/balcony 0\n/b/bakery/shop 1\n/a/airfield 2\n")
    found = scan(tmp_path)
    assert found.classes == ("balcony", "bakery-shop", "airfield")
    assert found.splits["test"].paths == ("val/balcony/2.jpg", "val/bakery-shop/2.jpg", "val/airfield/2.jpg")
    touch(tmp_path, "val/moon/1.jpg")
    with pytest.raises(UserError, match=r"val: holds 1 class folder.* none of the 3 classes: 'moon'"):
        scan(tmp_path)


def test_neither_lists_nor_folders(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none: no such folder"):
        scan(tmp_path / "none")
    with pytest.raises(UserError, match=r"holds neither places365_train_standard.txt nor the folders train and val"):
        scan(tmp_path)


def test_names_are_without_the_letter_that_sorts_them(root: Path) -> None:
    assert categories(root / "categories_places365.txt") == ("airfield", "bakery/shop", "balcony")


def test_a_fresh_tail_with_val_from_what_train_does_not_use(root: Path, tmp_path: Path) -> None:
    names = ("a/airfield", "b/bakery/shop", "b/balcony")
    lines = [f"/{name}/{n:08d}.jpg {label}" for label, name in enumerate(names) for n in range(60)]
    (root / "places365_train_standard.txt").write_text("\n".join(lines))
    touch(root / "data_256_standard", *(line.partition(" ")[0][1:] for line in lines))
    touch(root / "val_256", *(line.partition(" ")[0] for line in VAL.splitlines()))
    layout = Layout(tmp_path / "out")
    given = {
        "source": {"kind": "places365", "root": str(root)},
        "split": {"val": 20},
        "long_tail": {"profile": "step", "imbalance_factor": 10, "n_max": 40, "head": 0.4},
        "decode": False,
    }
    prepare(PrepareSettings.model_validate(given), seed=0, shots=ShotSettings(), layout=layout)
    stats = read_json(layout.stats)
    assert [[entry[split] for split in SPLITS] for entry in stats["classes"]] == [[40, 20, 1], [4, 20, 1], [4, 20, 1]]
    train, val = (set(read_list(layout.split_list(split), 3).paths) for split in ("train", "val"))
    assert train.isdisjoint(val)
    assert stats["skipped"] == []
