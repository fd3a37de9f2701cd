"""iNaturalist's files: joined by id, named as well as the release allows, and what is wrong with some."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from ltrec.data.sources.inaturalist import INaturalistSource
from ltrec.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from ltrec.data.sources.collection import Collection

# Neither list is in the other's order, and the categories' ids have gaps.
TRAIN: dict[str, Any] = {
    "info": {"year": 2018},
    "images": [
        {"id": 30, "file_name": "train/Aves/7/c.jpg", "license": 1, "rights_holder": "C"},
        {"id": 10, "file_name": "train/Plantae/3/a.jpg"},
        {"id": 20, "file_name": "train/Aves/7/b.jpg"},
    ],
    "annotations": [
        {"id": 1, "image_id": 10, "category_id": 3},
        {"id": 2, "image_id": 20, "category_id": 7},
        {"id": 3, "image_id": 30, "category_id": 7},
    ],
    "categories": [
        {"id": 7, "name": "Pica pica", "supercategory": "Aves"},
        {"id": 3, "name": "Bellis perennis", "supercategory": "Plantae"},
    ],
}


def write(root: Path, name: str, content: Any) -> None:
    (root / name).write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def scan(root: Path, content: Any, **others: Any) -> Collection:
    write(root, "train.json", content)
    for split, other in others.items():
        write(root, f"{split}.json", other)
    names = {split: f"{split}.json" for split in others}
    return INaturalistSource(kind="inaturalist", root=str(root), train="train.json", **names).scan()


def test_annotations_are_joined_by_image_id(tmp_path: Path) -> None:
    found = scan(tmp_path, TRAIN)
    assert found.classes == ("Bellis perennis", "Pica pica")
    assert found.supercategories == ("Plantae", "Aves")
    train = found.splits["train"]
    assert dict(zip(train.paths, train.labels.tolist(), strict=True)) == {
        "train/Plantae/3/a.jpg": 0,
        "train/Aves/7/b.jpg": 1,
        "train/Aves/7/c.jpg": 1,
    }
    assert set(found.splits) == {"train"}
    assert found.skipped == ()


def test_val_may_lack_classes_and_have_new_ones(tmp_path: Path) -> None:
    val = {
        "images": [{"id": 10, "file_name": "val/x.jpg"}],
        "annotations": [{"image_id": 10, "category_id": 5}],
        "categories": [{"id": 5, "name": "Apis mellifera", "supercategory": "Insecta"}],
    }
    found = scan(tmp_path, TRAIN, val=val)
    assert found.classes == ("Bellis perennis", "Apis mellifera", "Pica pica")
    assert found.splits["val"].labels.tolist() == [1]
    assert found.splits["train"].labels.tolist() == [2, 0, 2]
    assert found.supercategories == ("Plantae", "Insecta", "Aves")


@pytest.mark.parametrize(
    ("categories", "names", "kinds"),
    [
        (None, ("3", "7"), ()),
        ([{"id": 3}, {"id": 7}], ("3", "7"), ()),
        ([{"id": 3, "supercategory": "Plantae"}, {"id": 7}], ("3", "7"), ("Plantae", None)),
        ([{"id": 3, "name": "same"}, {"id": 7, "name": "same"}], ("same (3)", "same (7)"), ()),
    ],
)
def test_releases_without_names(
    tmp_path: Path, categories: Any, names: tuple[str, ...], kinds: tuple[str | None, ...]
) -> None:
    content = {key: value for key, value in TRAIN.items() if key != "categories"}
    found = scan(tmp_path, content if categories is None else {**content, "categories": categories})
    assert (found.classes, found.supercategories) == (names, kinds)


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_file_of_its_own_can_name_the_categories(tmp_path: Path, *, wrapped: bool) -> None:
    named = [{"id": number, "name": f"name {number}", "supercategory": "Animalia"} for number in (9, 7, 3)]
    write(tmp_path, "categories.json", {"categories": named} if wrapped else named)
    write(tmp_path, "train.json", TRAIN)
    found = INaturalistSource(
        kind="inaturalist", root=str(tmp_path), train="train.json", categories="categories.json"
    ).scan()
    assert found.classes == ("name 3", "name 7", "name 9")
    assert found.supercategories == ("Animalia",) * 3
    assert found.splits["train"].labels.tolist() == [1, 0, 1]


def test_boxes_of_one_image_agree_and_images_without_annotation_are_skipped(tmp_path: Path) -> None:
    more = {
        **TRAIN,
        "images": [*TRAIN["images"], {"id": 40, "file_name": "alone.jpg"}],
        "annotations": [*TRAIN["annotations"], {"image_id": 10, "category_id": 3, "bbox": [0, 0, 1, 1]}],
    }
    found = scan(tmp_path, more)
    assert sorted(found.splits["train"].paths) == sorted(image["file_name"] for image in TRAIN["images"])
    assert [(skip.path, skip.reason) for skip in found.skipped] == [("alone.jpg", "no annotation")]


def changed(section: str, *more: dict[str, Any]) -> dict[str, Any]:
    return {**TRAIN, section: [*TRAIN[section], *more]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            changed("annotations", *({"image_id": n, "category_id": 3} for n in (91, 92, 93, 94))),
            "annotations of 4 image(s) that `images` lacks: image_id 91, 92, 93 and 1 more",
        ),
        (
            changed("annotations", {"image_id": 10, "category_id": 7}),
            "1 image(s) have two categories: 'train/Plantae/3/a.jpg' (3 and 7)",
        ),
        (
            changed("annotations", {"image_id": 10, "category_id": 3}, {"image_id": 20, "category_id": 8}),
            "two categories",
        ),
        ({**TRAIN, "categories": TRAIN["categories"][:1]}, "name 1 category_id(s) that `categories` lacks: 3"),
        (changed("images", {"id": 10, "file_name": "again.jpg"}), "`images` has 1 id(s) more than once: 10"),
        (changed("categories", {"id": 3, "name": "again"}), "`categories` has 1 id(s) more than once: 3"),
        (changed("images", {"id": 40}), "images[3]: file_name must be text, got None"),
        (changed("annotations", {"image_id": 10}), "annotations[3]: category_id must be a whole number, got None"),
        (
            changed("annotations", {"image_id": [1], "category_id": 3}),
            "image_id must be a whole number or text, got [1]",
        ),
        (changed("images", {"id": 40, "file_name": "/a.jpg"}), "1 path(s) cannot be used: images[3] ('/a.jpg' is"),
        (changed("images", {"id": 40, "file_name": "../a"}), "images[3] ('../a' leaves the source's root)"),
        ({**TRAIN, "annotations": []}, "has no annotations; the labels of the competitions' test images"),
        ({"images": []}, "has no annotations; the labels"),
        ({"annotations": 3}, "must have `images`, a list of mappings"),
        ({**TRAIN, "annotations": 3}, "must have `annotations`, a list of mappings"),
        ({**TRAIN, "categories": {"3": "x"}}, "must have `categories`, a list of mappings"),
        ([1, 2], "must be a mapping with images and annotations"),
        (json.dumps(TRAIN)[:-20], "is not JSON, or was cut off ("),
        ("train/a.jpg 0\n", "is not JSON, or was cut off ("),
        ("", "is not JSON, or was cut off ("),
        ("[" * 200_000, "is not JSON, or was cut off ("),
        (json.dumps(TRAIN)[:-1] + f', "x": {"9" * 5000}}}', "holds a number that cannot be read (Exceeds the limit"),
        ({**TRAIN, "categories": [{"id": 3, "name": "x", "supercategory": 5}]}, "supercategory must be text or null"),
        ({**TRAIN, "categories": [{"id": 3, "name": ["x"]}]}, "name must be a whole number or text or null, got ['x']"),
        ({**TRAIN, "categories": [{"id": True, "name": "x"}]}, "categories[0]: id must be a whole number, got True"),
        ({**TRAIN, "images": [{"id": True, "file_name": "a.jpg"}]}, "id must be a whole number or text, got True"),
    ],
)
def test_a_bad_file_is_one_line(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(UserError) as caught:
        scan(tmp_path, content)
    assert str(caught.value).startswith(f"{tmp_path / 'train.json'}")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train.json: no such file"):
        INaturalistSource(kind="inaturalist", root=str(tmp_path), train="train.json").scan()
    (tmp_path / "train.json").write_bytes(b'{"images": "\xff"}')
    with pytest.raises(UserError, match=r"train.json: is not UTF-8 text"):
        INaturalistSource(kind="inaturalist", root=str(tmp_path), train="train.json").scan()
