"""Samples spread evenly over a list."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from ltrec import artifacts
from ltrec.artifacts import Layout
from ltrec.data.image_lists import make_list
from ltrec.data.images.decoding import Geometry
from ltrec.errors import UserError
from ltrec.serving.sample import sample

if TYPE_CHECKING:
    from pathlib import Path

GEOMETRY = Geometry(size=2, resize=2)
LISTED = make_list([(f"{n}.png", n // 2) for n in range(5)])


def test_first_middle_and_last(tmp_path: Path) -> None:
    for n in (0, 2, 4):  # the others are not opened
        Image.new("RGB", (2, 2), (n, 0, 0)).save(tmp_path / f"{n}.png")
    taken = sample(LISTED, 3, tmp_path, GEOMETRY)
    assert taken.images.shape == (3, 2, 2, 3)
    assert taken.images.dtype == np.uint8
    assert taken.images[:, 0, 0, 0].tolist() == [0, 2, 4]
    assert taken.labels.tolist() == [0, 1, 2]
    assert taken.rows.tolist() == [0, 2, 4]


def test_what_prepare_kept_of_a_truncated_image_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "0.png")
    (tmp_path / "0.png").write_bytes((tmp_path / "0.png").read_bytes()[:6000])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"0\.png: truncated; has the data changed"):
        sample(LISTED, 1, tmp_path, GEOMETRY)
    artifacts.write_json(Layout().stats, {"truncated": ["0.png"]})
    assert sample(LISTED, 1, tmp_path, GEOMETRY).images[0, 1].min() > 100


def test_an_image_of_a_kind_that_is_not_read_any_more_names_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(b"FUJIFILMCCD-RAW 0201")
    with pytest.raises(UserError, match=r"0\.png: RAW photographs \(RAF\): develop .*; `prepare` could read it$"):
        sample(LISTED, 1, tmp_path, GEOMETRY)


def test_an_image_that_is_gone_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"0\.png: cannot be read .*has the data changed since `prepare`"):
        sample(LISTED, 1, tmp_path, GEOMETRY)
