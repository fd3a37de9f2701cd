"""The sample data: real scans, the same bytes everywhere, and nobody's files overwritten."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from ltrec.data.downloads import writing
from ltrec.data.downloads.digits import write_digits
from ltrec.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

EVERYTHING = "fdd31506623192466d83eb16595bcdbce97d6d8d3b82311a6953a87803463c73"


def tree(root: Path) -> dict[str, bytes]:
    return {file.relative_to(root).as_posix(): file.read_bytes() for file in root.rglob("*") if file.is_file()}


def test_every_byte_is_the_same_on_every_machine(tmp_path: Path) -> None:
    write_digits(tmp_path / "data")
    written = tree(tmp_path / "data")
    assert len(written) == 1797
    whole = hashlib.sha256()
    for path in sorted(written):
        whole.update(path.encode() + b"\0" + written[path])
    assert whole.hexdigest() == EVERYTHING
    assert [entry.name for entry in tmp_path.iterdir()] == ["data"]


def test_images_are_the_scans_scaled_to_8_bits(tmp_path: Path) -> None:
    write_digits(tmp_path / "data")
    with Image.open(tmp_path / "data" / "0" / "0000.png") as image:
        assert image.mode == "L"
        # The first row of the first scan is 0 0 5 13 9 1 0 0 in sixteenths: v · 255 / 16, halves up.
        assert np.asarray(image)[0].tolist() == [0, 0, 80, 207, 143, 16, 0, 0]


def test_identical_data_is_fine_and_a_missing_file_comes_back(tmp_path: Path) -> None:
    write_digits(tmp_path / "data")
    before = tree(tmp_path / "data")
    (tmp_path / "data" / ".DS_Store").write_bytes(b"litter")
    write_digits(tmp_path / "data")
    (tmp_path / "data" / "3" / "0013.png").unlink()
    write_digits(tmp_path / "data")
    assert tree(tmp_path / "data") == before | {".DS_Store": b"litter"}


def test_an_empty_folder_behind_a_link_is_filled(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "data").symlink_to(tmp_path / "disk")
    write_digits(tmp_path / "data")
    assert (tmp_path / "data").is_symlink()
    assert len(tree(tmp_path / "disk")) == 1797


@pytest.mark.parametrize("path", ["cats/1.png", "3/0013.png", "3/mine.png", "0123/0000.png"])
def test_other_data_is_refused_and_stays(tmp_path: Path, path: str) -> None:
    own = tmp_path / "data" / path
    own.parent.mkdir(parents=True)
    own.write_bytes(b"mine")
    with pytest.raises(UserError, match="holds other data"):
        write_digits(tmp_path / "data")
    assert tree(tmp_path / "data") == {path: b"mine"}


def test_an_interruption_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = writing._write

    def interrupted(folder: Path, files: dict[str, Any]) -> None:
        write(folder, dict(list(files.items())[:100]))
        raise KeyboardInterrupt

    monkeypatch.setattr(writing, "_write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_digits(tmp_path / "data")
    assert list(tmp_path.iterdir()) == []
