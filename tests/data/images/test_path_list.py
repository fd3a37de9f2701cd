"""Paths in a buffer: the same strings, in any order, without an object for each."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from ltrec.data.image_lists import ImageList
from ltrec.data.images import path_list
from ltrec.data.images.dataset import ImageDataset
from ltrec.data.images.decoding import Geometry
from ltrec.data.images.path_list import PathList, compact

PATHS = ["a.png", "", "day 1/ä c.jpg", "漢字/\x00\n.png", "x" * 300, "undecodable \udcff.png", "a.png"]


@pytest.mark.parametrize("at_once", [1, 3, 1 << 16])
def test_it_is_the_sequence_that_it_was_made_of(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(path_list, "_AT_ONCE", at_once)
    made = PathList(iter(PATHS))
    assert len(made) == len(PATHS)
    assert list(made) == [made[place] for place in range(len(PATHS))] == PATHS
    assert [made[place - len(PATHS)] for place in range(len(PATHS))] == PATHS
    assert made[np.int64(2)] == PATHS[2]  # type: ignore[call-overload]
    assert list(made[1:5:2]) == PATHS[1:5:2]
    assert "day 1/ä c.jpg" in made
    assert list(pickle.loads(pickle.dumps(made))) == PATHS  # noqa: S301 - as a worker process that is not forked gets it


@pytest.mark.parametrize("place", [len(PATHS), -len(PATHS) - 1])
def test_beyond_its_ends_is_nothing(place: int) -> None:
    with pytest.raises(IndexError):
        PathList(PATHS)[place]


def test_no_paths() -> None:
    assert list(PathList([])) == []
    assert len(PathList([])) == 0


def test_a_list_that_is_kept_holds_no_string_and_the_same_images() -> None:
    images = ImageList(tuple(f"{n}.png" for n in range(50)), np.arange(50) % 3)
    kept = compact(images)
    assert list(kept.paths) == list(images.paths)
    assert kept.labels is images.labels
    assert list(kept.where(kept.labels == 1).paths) == list(images.where(images.labels == 1).paths)
    assert {type(held) for held in vars(kept.paths).values()} == {bytes, np.ndarray}


def test_worker_processes_are_given_no_strings() -> None:
    images = ImageDataset(Path("data"), ["1.png", "2.png"], Geometry(size=4, resize=4))
    assert isinstance(images.paths, PathList)
    shared = ImageDataset(images.root, images.paths, images.geometry)
    assert shared.paths is images.paths, "two views of a list hold it once"
