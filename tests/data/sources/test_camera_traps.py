"""COCO Camera Traps: sequences, places, and images of several categories."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from ltrec.data.sources.camera_traps import CameraTrapsSource
from ltrec.data.sources.inaturalist import INaturalistSource
from ltrec.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

CONTENT: dict[str, Any] = {
    "images": [
        {"id": "i0", "file_name": "0.jpg", "seq_id": "s0", "seq_num_frames": 2, "frame_num": 0, "location": 7},
        {"id": "i1", "file_name": "1.jpg", "seq_id": "s0", "seq_num_frames": 2, "frame_num": 1, "location": 7},
        {"id": "i2", "file_name": "2.jpg", "seq_id": "s1", "location": 8},
        {"id": "i3", "file_name": "3.jpg", "seq_id": None, "location": 8},
        {"id": "i4", "file_name": "4.jpg", "seq_id": "s1", "location": 8},
    ],
    "annotations": [
        {"id": "a0", "image_id": "i0", "category_id": 0},
        {"id": "a1", "image_id": "i1", "category_id": 5, "bbox": [0, 0, 1, 1]},
        {"id": "a2", "image_id": "i1", "category_id": 5, "bbox": [1, 1, 1, 1]},
        {"id": "a3", "image_id": "i2", "category_id": 5},
        {"id": "a4", "image_id": "i2", "category_id": 9},
        {"id": "a5", "image_id": "i2", "category_id": 5},
        {"id": "a6", "image_id": "i3", "category_id": 9},
    ],
    "categories": [{"id": 0, "name": "empty"}, {"id": 5, "name": "deer"}, {"id": 9, "name": "fox"}],
}


def source(root: Path, content: Any = CONTENT) -> CameraTrapsSource:
    (root / "caltech.json").write_text(json.dumps(content))
    return CameraTrapsSource(kind="coco_camera_traps", root=str(root), train="caltech.json")


def test_empty_is_a_class_and_several_categories_are_skipped(tmp_path: Path) -> None:
    found = source(tmp_path).scan()
    assert found.classes == ("empty", "deer", "fox")
    train = found.splits["train"]
    assert list(zip(train.paths, train.labels.tolist(), strict=True)) == [("0.jpg", 0), ("1.jpg", 1), ("3.jpg", 2)]
    assert {skip.path: skip.reason for skip in found.skipped} == {
        "2.jpg": "several categories: deer, fox", "4.jpg": "no annotation",
    }  # fmt: skip
    assert found.groups == {}


def test_sequences_and_places_are_groups(tmp_path: Path) -> None:
    groups = source(tmp_path).scan(group="seq_id").groups
    assert {path: groups.get(path) for path in ("0.jpg", "1.jpg", "3.jpg")} == {
        "0.jpg": "s0", "1.jpg": "s0", "3.jpg": None,
    }  # fmt: skip
    assert source(tmp_path).scan(group="location").groups["3.jpg"] == "8"
    inaturalist = INaturalistSource(kind="inaturalist", root=str(tmp_path), train="inat.json")
    agreeing = CONTENT | {"annotations": CONTENT["annotations"][:4]}
    (tmp_path / "inat.json").write_text(json.dumps(agreeing))
    assert inaturalist.scan(group="seq_id").groups["1.jpg"] == "s0"


def test_a_key_that_no_image_has_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"caltech\.json: none of its 5 images has a 'sequence'"):
        source(tmp_path).scan(group="sequence")
    wrong = CONTENT | {"images": [{"id": "i0", "file_name": "0.jpg", "seq_id": 0.5}]}
    with pytest.raises(UserError, match=r"seq_id must be a whole number or text or null, got 0\.5"):
        source(tmp_path, wrong | {"annotations": CONTENT["annotations"][:1]}).scan(group="seq_id")
