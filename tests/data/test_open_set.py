"""Which images are unknown, and where they go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError

from ltrec.data.contents import Contents
from ltrec.data.drawing import Draw
from ltrec.data.image_lists import make_list
from ltrec.data.open_set import OpenSetSettings
from ltrec.data.sources.collection import Collection, Skipped
from ltrec.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

FOUND = Collection(
    ("ant", "bee", "cat", "dog"),
    {
        "train": make_list([("ant/1", 0), ("bee/1", 1), ("bee/2", 1), ("cat/1", 2), ("dog/1", 3)]),
        "test": make_list([("ant/2", 0), ("bee/3", 1), ("dog/2", 3)]),
    },
    (Skipped("open.txt", "not in a class folder"), Skipped("cat/0", "a broken link")),
)


def settings(**given: Any) -> OpenSetSettings:
    return OpenSetSettings.model_validate(given)


def pairs(found: Collection, split: Any) -> list[tuple[str, int]]:
    images = found.splits[split]
    return list(zip(images.paths, images.labels.tolist(), strict=True))


def test_unknown_classes_leave_every_split_and_the_others_are_numbered_anew(tmp_path: Path) -> None:
    known = settings(classes=("dog", "bee", "dog")).set_apart(FOUND, tmp_path)
    assert known.classes == ("ant", "cat")
    assert pairs(known, "train") == [("ant/1", 0), ("cat/1", 1)]
    assert pairs(known, "test") == [("ant/2", 0)]
    assert known.unknown == ("bee/1", "bee/2", "dog/1", "bee/3", "dog/2")
    assert known.skipped == FOUND.skipped, "to be unknown is not to be skipped"


def test_a_list_is_read_whatever_its_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ["\ufeffopen/my image.jpg 1007", "", "open/b.jpg\t-1 \r", "dog/2 dog", "open/b.jpg 3"]
    (tmp_path / "open.txt").write_text("\n".join(lines), encoding="utf-8", newline="")
    known = settings(list="open.txt").set_apart(FOUND, tmp_path)
    assert known.unknown == ("open/my image.jpg", "open/b.jpg", "dog/2")
    assert known.classes == FOUND.classes
    assert pairs(known, "test") == [("ant/2", 0), ("bee/3", 1)]
    assert pairs(known, "train") == pairs(FOUND, "train")
    assert [skip.path for skip in known.skipped] == ["cat/0"], "the list is no stray image"
    assert "1 image(s) leave their classes: open.txt says" in capsys.readouterr().err


def test_classes_and_list_together_give_each_image_once(tmp_path: Path) -> None:
    (tmp_path / "open.txt").write_text("cat/1 0\nopen/a 0\n")
    known = settings(classes=("cat",), list="open.txt").set_apart(FOUND, tmp_path)
    assert known.unknown == ("cat/1", "open/a")
    assert known.keep({"open/a", "ant/1", "bee/1"}, ()).drop({0: "gone"}).unknown == ("open/a",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a.jpg 1\nb.jpg\n", r"open.txt:2: expected `relative/path label`, got 'b.jpg'"),
        (b"/a.jpg 1\n", r"open.txt:1: '/a.jpg' is absolute"),
        (b"\n../a.jpg 1\n", r"open.txt:2: '../a.jpg' leaves the source's root"),
        (b" \n", "open.txt: the list has no images"),
        (b"\xff 1", "open.txt: is not UTF-8 text"),
        (None, "open.txt: no such file"),
    ],
)
def test_a_bad_list_is_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "open.txt").write_bytes(content)
    with pytest.raises(UserError, match=message):
        settings(list="open.txt").set_apart(FOUND, tmp_path)


def test_an_absolute_list_is_read_and_said_to_escape_dvc(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "open.txt").write_text("a 0\n")
    known = settings(list=str(tmp_path / "open.txt")).set_apart(FOUND, tmp_path / "elsewhere")
    assert known.unknown == ("a",)
    assert "elsewhere, so that `dvc repro` does not see when it changes" in capsys.readouterr().err


def by_path(seed: int) -> Draw:
    return Draw(seed, Contents(None))


def test_an_unknown_class_name_is_answered_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        settings(classes=("bee", "emu")).set_apart(FOUND, tmp_path)
    assert str(caught.value) == (
        "params.yaml: prepare.openset.classes: the source has no class 'emu'; it has 'ant', 'bee', 'cat' and 1 more"
    )
    many = Collection(tuple(f"c{number}" for number in range(100)), {"train": make_list([])})
    with pytest.raises(UserError, match=r"it has 'c0', 'c1', 'c2' and 97 more$"):
        settings(classes=("emu",)).set_apart(many, tmp_path)


@pytest.mark.parametrize(
    ("share", "unknown", "to_val"),
    # ⌊0.29·100⌋ is 28 in floating point.
    [(0.2, 10, 2), (0.2, 14, 2), (0.29, 100, 29), (0.0, 10, 0), (0.01, 10, 1), (0.99, 3, 2), (0.5, 1, 0)],
)
def test_the_share_of_val(share: float, unknown: int, to_val: int) -> None:
    paths = [f"open/{number}" for number in range(unknown)]
    splits = {split: make_list([(f"{split}/0", 0), (f"{split}/1", 1)]) for split in ("train", "val", "test")}
    added = settings(list="open.txt", val=share).add(splits, paths, by_path(0))  # type: ignore[arg-type]
    assert {split: len(images) - 2 for split, images in added.items()} == {
        "train": 0, "val": to_val, "test": unknown - to_val,
    }  # fmt: skip
    for split in ("val", "test"):
        assert added[split].paths[:2] == (f"{split}/0", f"{split}/1"), "unknown images come last"
        assert added[split].labels.tolist() == [0, 1] + [-1] * (len(added[split]) - 2)
        assert added[split].counts(2).tolist() == [1, 1]
        assert added[split].known().paths == (f"{split}/0", f"{split}/1")
    assert sorted(added["val"].paths[2:] + added["test"].paths[2:]) == sorted(paths)


def test_the_draw_follows_the_seed_and_not_the_order() -> None:
    paths = [f"open/{number}" for number in range(40)]
    splits = {split: make_list([]) for split in ("train", "val", "test")}

    def drawn(order: list[str], seed: int) -> set[str]:
        return set(settings(list="open.txt").add(splits, order, by_path(seed))["val"].paths)  # type: ignore[arg-type]

    assert drawn(paths, 0) == drawn(paths[::-1], 0)
    assert drawn(paths, 0) != drawn(paths, 1)


def test_none_that_can_be_read_is_a_mistake() -> None:
    with pytest.raises(UserError, match=r"prepare\.openset: there is no unknown image"):
        settings(classes=("cat",)).add({}, [], by_path(0))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "says of no image that it is unknown"),
        ({"val": 0.5}, "says of no image that it is unknown"),
        ({"list": "a", "val": 1.0}, "less than 1"),
        ({"list": "a", "val": -0.1}, "greater than or equal to 0"),
        ({"list": ""}, "at least 1 character"),
        ({"classes": ("",)}, "at least 1 character"),
    ],
)
def test_settings_that_say_nothing_or_too_much(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        settings(**given)
