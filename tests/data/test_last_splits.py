"""What is said of images that left val or test since the last time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ltrec.data.contents import Contents
from ltrec.data.image_lists import make_list
from ltrec.data.last_splits import RememberedSplits, warn_changed

if TYPE_CHECKING:
    from pathlib import Path

    from ltrec.artifacts import Split
    from ltrec.data.image_lists import ImageList

CONTENTS = Contents(None)


def splits(train: str, val: str, test: str) -> dict[Split, ImageList]:
    """An image a letter."""
    lists: dict[Split, str] = {"train": train, "val": val, "test": test}
    return {split: make_list([(name, 0) for name in names]) for split, names in lists.items()}


def changes(before: tuple[str, str, str], now: tuple[str, str, str]) -> list[str]:
    return RememberedSplits.of(splits(*before), CONTENTS).changes(splits(*now), CONTENTS)


def test_what_left_is_counted_with_where_it_went() -> None:
    before = ("abcd", "ef", "ghij")
    assert changes(before, before) == []
    assert changes(before, ("abcdxy", "efz", "ghij")) == [], "more images are no change"
    assert changes(before, ("abcg", "efh", "jd")) == [
        "3 of 4 test images left, 1 of them into train, 1 of them into val"
    ]
    assert changes(before, ("abcde", "f", "gij")) == [
        "1 of 4 test images left", "1 of 2 val images left, 1 of them into train",
    ]  # fmt: skip


def test_of_other_data_nothing_is_said() -> None:
    assert changes(("abcd", "ef", "ghij"), ("ABCD", "EF", "GHIJ")) == []


def test_it_is_one_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "state" / "splits.npz"
    now = splits("abcde", "f", "gij")
    warn_changed(file, now, CONTENTS)
    RememberedSplits.of(splits("abcd", "ef", "ghij"), CONTENTS).write(file)
    warn_changed(file, now, CONTENTS)
    (said,) = capsys.readouterr().err.splitlines()
    assert "1 of 4 test images left; 1 of 2 val images left, 1 of them into train" in said
    RememberedSplits.of(now, CONTENTS).write(file)
    warn_changed(file, now, CONTENTS)
    assert not capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"junk"])
def test_a_damaged_file_is_as_good_as_none(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "splits.npz"
    file.write_bytes(content)
    assert RememberedSplits.read(file) is None
