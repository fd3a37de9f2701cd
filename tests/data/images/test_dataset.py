"""Batches of squares in host memory: the same ones in any process, and one line when a file is gone."""

from __future__ import annotations

import gc
import inspect
import os
import shutil
import signal
import weakref
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ltrec.data.images import dataset
from ltrec.data.images.augmentation import AugmentSettings
from ltrec.data.images.dataset import BatchLoader, ImageDataset, _Order, resized
from ltrec.data.images.decoding import Geometry, decode_rgb, square
from ltrec.errors import UserError
from tests.data.images.conftest import PATHS

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # on a single core

GEOMETRY = Geometry(size=12, resize=14)
CROP = AugmentSettings().build().crop
THREES = [slice(0, 4), slice(4, 8), slice(8, 11)]


def epoch(batches: BatchLoader, number: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    random = np.random.default_rng(number)
    return list(batches.epoch(random.permutation(len(PATHS)), random.integers(0, 99, len(PATHS)), THREES))


def test_evaluation_is_the_square_of_each_image_in_order(root: Path) -> None:
    everything = np.arange(11)
    batches = list(BatchLoader(ImageDataset(root, PATHS, GEOMETRY), 0).epoch(everything, everything * 0, THREES))
    assert [len(index) for _, index in batches] == [4, 4, 3]
    assert torch.cat([index for _, index in batches]).tolist() == list(range(11))
    pixels = torch.cat([images for images, _ in batches])
    assert pixels.dtype == torch.uint8
    expected = np.stack([square(decode_rgb(root / path), GEOMETRY) for path in PATHS])
    assert np.array_equal(pixels.numpy(), expected)


def test_the_order_is_the_one_given_and_an_image_may_come_twice(root: Path) -> None:
    assert CROP is not None
    indices, parts = np.array([3, 3, 0, 10, 3]), [slice(0, 4, 2), slice(1, 4, 2), slice(4, 5)]
    loaded = list(BatchLoader(ImageDataset(root, PATHS, GEOMETRY, CROP), 0).epoch(indices, np.arange(5), parts))
    assert [index.tolist() for _, index in loaded] == [[3, 0], [3, 10], [3]]
    assert not torch.equal(loaded[0][0][0], loaded[1][0][0]), "two seeds, two views"
    wanted = resized(np.array(decode_rgb(root / "3.png").crop(CROP(20, 16, 1))), Geometry(size=12, resize=12))
    assert torch.equal(loaded[1][0][0], wanted)


@pytest.mark.slow
def test_worker_processes_change_nothing(root: Path) -> None:
    alone, helped = (BatchLoader(ImageDataset(root, PATHS, GEOMETRY, CROP), workers) for workers in (0, 2))
    for number in (0, 1):
        for (images, index), (others, other_index) in zip(epoch(alone, number), epoch(helped, number), strict=True):
            assert torch.equal(index, other_index)
            assert torch.equal(images, others)


@pytest.mark.slow
def test_the_callers_generators_are_left_alone(root: Path) -> None:
    before, numpy_before = torch.random.get_rng_state(), str(np.random.get_state())  # noqa: NPY002
    for workers in (0, 2):
        epoch(BatchLoader(ImageDataset(root, PATHS, GEOMETRY, CROP), workers), 0)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert str(np.random.get_state()) == numpy_before  # noqa: NPY002


@pytest.mark.parametrize("crop", [None, CROP])
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_file_that_vanished_is_one_line(root: Path, workers: int, crop: object) -> None:
    batches = BatchLoader(ImageDataset(root, PATHS, GEOMETRY, crop), workers)  # type: ignore[arg-type]
    epoch(batches, 0)
    (root / "7.png").unlink()
    said = None
    try:  # pytest.raises would keep the traceback, and with it the worker processes
        epoch(batches, 1)
    except UserError as error:
        said, where = str(error), error.where
    assert said is not None
    assert "7.png: cannot be read (No such file or directory)" in said
    assert "\n" not in said
    assert where == str(root / "7.png")


@pytest.mark.parametrize("crop", [None, CROP])
def test_what_prepare_kept_of_a_truncated_file_is_shown(root: Path, crop: object) -> None:
    content = (root / "7.png").read_bytes()
    (root / "7.png").write_bytes(content[: len(content) // 2])
    strict = BatchLoader(ImageDataset(root, PATHS, GEOMETRY, crop), 0)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"7\.png: truncated; it could be read by `prepare`"):
        epoch(strict, 0)
    kept = ImageDataset(root, PATHS, GEOMETRY, crop, truncated=frozenset({"7.png"}))  # type: ignore[arg-type]
    assert sum(len(index) for _, index in epoch(BatchLoader(kept, 0), 0)) == len(PATHS)


def test_a_file_of_a_kind_that_is_not_read_any_more_names_the_remedy(root: Path) -> None:
    (root / "7.png").write_bytes(b"FUJIFILMCCD-RAW 0201")
    with pytest.raises(UserError, match=r"7\.png: RAW photographs \(RAF\): develop .*; `prepare` could read it$"):
        epoch(BatchLoader(ImageDataset(root, PATHS, GEOMETRY), 0), 0)


def _killed(_width: int, _height: int, _seed: int) -> tuple[int, int, int, int]:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


@pytest.mark.slow
def test_a_killed_worker_is_one_line(root: Path) -> None:
    batches = BatchLoader(ImageDataset(root, PATHS, GEOMETRY, _killed), 1)
    with pytest.raises(
        UserError, match=r"represent\.workers, .*: a process that decodes images was killed .*"
    ) as raised:
        epoch(batches, 0)
    assert "\n" not in str(raised.value)


def little_shared_memory(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    """As of a container with the default of 64 MB."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: SimpleNamespace(free=free))


# Three batches of at most 4 squares of 12 × 12 pixels: with two workers or more all three may wait.
NEEDED = 3 * 4 * 12 * 12 * 3


@pytest.mark.parametrize(("workers", "beside", "needed"), [(1, 1, NEEDED * 2 // 3), (3, 1, NEEDED), (3, 8, 8 * NEEDED)])
def test_shared_memory_that_will_not_do_is_told_of_before_the_workers_start(
    workers: int, beside: int, needed: int, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = BatchLoader(ImageDataset(root, PATHS, GEOMETRY), workers, beside=beside)
    little_shared_memory(monkeypatch, needed - 1)
    monkeypatch.setattr(batches._loader, "_get_iterator", lambda: pytest.fail("workers are started"))
    with pytest.raises(UserError, match=r"represent\.workers, .* need .* MB of shared memory .*--shm-size") as raised:
        epoch(batches, 0)
    assert "\n" not in str(raised.value)
    assert "`workers: 0`" in str(raised.value)
    little_shared_memory(monkeypatch, needed)
    monkeypatch.setattr(batches._loader, "_get_iterator", lambda: iter(()))
    assert epoch(batches, 0) == []


@pytest.mark.parametrize("missing", [True, False])
def test_without_workers_or_a_folder_for_it_shared_memory_does_not_matter(
    missing: bool, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if missing:
        monkeypatch.setattr(dataset, "_SHARED_MEMORY", str(root / "none"))
    else:
        little_shared_memory(monkeypatch, 0)
    batches = BatchLoader(ImageDataset(root, PATHS, GEOMETRY), 1 if missing else 0)
    monkeypatch.setattr(batches._loader, "_get_iterator", lambda: iter(()))
    assert epoch(batches, 0) == []


class Frozen(ImageDataset):
    """Tells in place of an index how many objects garbage collection leaves alone."""

    def __getitem__(self, item: tuple[int, int]) -> tuple[torch.Tensor, int] | UserError:
        return torch.empty(0), gc.get_freeze_count()


@pytest.mark.slow
def test_workers_do_not_write_to_what_they_share() -> None:
    batches = BatchLoader(Frozen(Path(), PATHS, GEOMETRY), 1)
    assert min(int(index.min()) for _, index in epoch(batches, 0)) > 10_000
    assert not gc.get_freeze_count(), "the caller's is as it was"


@pytest.mark.slow
def test_workers_are_let_go_at_once(root: Path) -> None:
    batches = BatchLoader(ImageDataset(root, PATHS, GEOMETRY), 2)
    epoch(batches, 0)
    left = weakref.ref(batches._loader)
    gc.disable()
    try:
        del batches
        assert left() is None, "a reference cycle keeps the worker processes, and ending them then takes seconds each"
    finally:
        gc.enable()


def test_batches_are_made_when_their_turn_comes() -> None:
    order = _Order()
    assert list(order) == []
    order.images, order.parts = (np.arange(5), np.arange(5) * 10), [slice(0, 3), slice(3, 5)]
    assert len(order) == 2
    assert inspect.isgenerator(iter(order))
    assert list(order) == [[(0, 0), (1, 10), (2, 20)], [(3, 30), (4, 40)]]
