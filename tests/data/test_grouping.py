"""What belongs together: by paths, by the source's own columns, by EXIF data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from PIL import ExifTags, Image
from pydantic import TypeAdapter, ValidationError

from ltrec.data.contents import Contents
from ltrec.data.grouping import GroupSettings, Shot, group_statistics, shot_of
from ltrec.data.image_lists import make_list
from ltrec.data.sources.collection import Collection
from ltrec.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

GROUPS: TypeAdapter[Any] = TypeAdapter(GroupSettings)
PATHS = ["a/patient1_0.png", "a/patient1_1.png", "b/patient12_0.png", "b/other.png"]


def collection(*paths: str) -> Collection:
    labels = sorted({path[0] for path in paths})
    return Collection(tuple(labels), {"train": make_list([(path, labels.index(path[0])) for path in paths])})


def groups(settings: object, found: Collection, root: Path, **digests: bytes) -> dict[str, str]:
    return dict(GROUPS.validate_python(settings).of(found, root, Contents(digests or None), 1))


def test_a_pattern_groups_by_its_first_group_or_by_all_that_it_matches(tmp_path: Path) -> None:
    found = collection(*PATHS)
    assert groups({"by": "regex", "pattern": r"patient(\d+)"}, found, tmp_path) == {
        PATHS[0]: "1", PATHS[1]: "1", PATHS[2]: "12",
    }  # fmt: skip
    assert groups(r"patient\d+", found, tmp_path) == {
        PATHS[0]: "patient1", PATHS[1]: "patient1", PATHS[2]: "patient12",
    }  # fmt: skip
    assert PATHS[3] not in groups(r"patient1_.|other|patient1(2)", found, tmp_path), (
        "a group that takes no part is none"
    )


def test_a_pattern_that_matches_no_path_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"prepare\.split\.group: matches none of the 4 paths, such as 'a/patient1_0"):
        groups("seq", collection(*PATHS), tmp_path)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("patient(", "is no regular expression"),
        ({"by": "regex", "pattern": ""}, "at least 1 character"),
        ({"by": "burst", "seconds": 0}, "greater than 0"),
        ({"by": "camera"}, "burst"),
        ({"column": "seq"}, "by"),
    ],
)
def test_groups_that_make_no_sense(given: object, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        GROUPS.validate_python(given)


def photograph(file: Path, camera: str | None, time: str | None, fraction: str | None = None) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    if camera:
        exif[ExifTags.Base.Model] = camera
    details = exif.get_ifd(ExifTags.IFD.Exif)
    if time:
        details[ExifTags.Base.DateTimeOriginal] = f"2026:05:01 {time}"
    if fraction:
        details[ExifTags.Base.SubsecTimeOriginal] = fraction
    Image.new("RGB", (8, 8)).save(file, exif=exif)


def test_what_an_image_says_of_camera_and_time(tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    photograph(file, "X100", "12:00:00", "25")
    first = shot_of(file)
    photograph(file, "X100", "12:00:01")
    second = shot_of(file)
    assert isinstance(first, Shot)
    assert isinstance(second, Shot)
    assert second.time - first.time == pytest.approx(0.75)
    for camera, time in ((None, "12:00:00"), ("X100", None), ("X100", "noon")):
        photograph(file, camera, time)
        assert shot_of(file) is None
    file.write_bytes(b"no image")
    assert shot_of(file) is None


def test_a_burst_is_a_chain_of_neighbours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shots = {
        "a/0.jpg": ("X", "12:00:00"),
        "a/1.jpg": ("X", "12:00:02"),
        "a/2.jpg": ("X", "12:00:04"),
        "a/3.jpg": ("X", "12:00:07"),
        "a/4.jpg": ("Y", "12:00:01"),
        "a/5.jpg": (None, None),
        "b/0.jpg": ("X", "12:00:01"),
    }
    for path, (camera, time) in shots.items():
        photograph(tmp_path / path, camera, time)
    digests = {path: path.encode() for path in shots}
    found = groups({"by": "burst"}, collection(*shots), tmp_path, **digests)
    assert found == {
        **dict.fromkeys(["a/0.jpg", "a/1.jpg", "a/2.jpg"], b"a/0.jpg".hex()),
        "a/3.jpg": b"a/3.jpg".hex(), "a/4.jpg": b"a/4.jpg".hex(), "b/0.jpg": b"b/0.jpg".hex(),
    }  # fmt: skip
    assert "1 of 7 images have no camera and time" in capsys.readouterr().err
    longer = groups({"by": "burst", "seconds": 3}, collection(*shots), tmp_path, **digests)
    assert longer["a/3.jpg"] == b"a/0.jpg".hex()


def test_groups_are_counted_and_torn_ones_said(capsys: pytest.CaptureFixture[str]) -> None:
    whole = make_list([(path, 0) for path in PATHS])
    of_path = {PATHS[0]: "1", PATHS[1]: "1", PATHS[2]: "2"}
    counted = group_statistics(of_path, {"train": whole})
    assert counted == {"number": 2, "images": 3, "largest": 2, "in_several_splits": 0}
    assert not capsys.readouterr().err
    torn = group_statistics(of_path, {"train": whole, "test": make_list([(PATHS[1], 0)])})
    assert torn["in_several_splits"] == 1
    assert "1 group(s) lie in more than one" in capsys.readouterr().err
