"""Batches of images: the same ones however they are loaded, and one line when a file is gone."""

from __future__ import annotations

import gc
import inspect
import os
import shutil
import signal
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ltrec import loading
from ltrec.augment import AugmentSettings
from ltrec.data.decoding import Geometry, decode_rgb, square
from ltrec.errors import UserError
from ltrec.loading import Batches, Images, _Order, view_seeds

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # on a single core

GEOMETRY = Geometry(size=12, resize=14)
PATHS = [f"{n}.png" for n in range(11)]
AUGMENT = AugmentSettings(jitter=0.3).build(GEOMETRY)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    pixels = np.random.default_rng(0).integers(0, 256, (len(PATHS), 16, 20, 3)).astype(np.uint8)
    for path, image in zip(PATHS, pixels, strict=True):
        Image.fromarray(image).save(root / path)
    return root


@pytest.fixture
def root(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "images"))


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """The images count as too large to stay in memory."""
    monkeypatch.setattr(loading, "_RESIDENT_SIDE", 1)


def epoch(batches: Batches, number: int, *, drop_last: bool = False) -> list[tuple[torch.Tensor, torch.Tensor]]:
    indices = np.random.default_rng(number).permutation(len(PATHS))
    return list(batches.epoch(indices, view_seeds(0, number, len(indices)), drop_last=drop_last))


def test_evaluation_is_the_square_of_each_image_in_order(root: Path) -> None:
    batches = list(Batches(Images(root, PATHS, GEOMETRY), 4, 0).once())
    assert [len(index) for _, index in batches] == [4, 4, 3]
    assert torch.cat([index for _, index in batches]).tolist() == list(range(11))
    pixels = torch.cat([images for images, _ in batches])
    assert pixels.dtype == torch.uint8
    expected = np.stack([square(decode_rgb(root / path), GEOMETRY) for path in PATHS])
    assert np.array_equal(pixels.numpy(), expected)


def test_the_order_is_the_one_given_and_an_image_may_come_twice(root: Path) -> None:
    indices = np.array([3, 3, 0, 10, 3])
    loaded = list(Batches(Images(root, PATHS, GEOMETRY, AUGMENT), 2, 0).epoch(indices, np.arange(5), drop_last=False))
    assert [index.tolist() for _, index in loaded] == [[3, 3], [0, 10], [3]]
    first = loaded[0][0]
    assert not torch.equal(first[0], first[1]), "two seeds, two views"
    assert np.array_equal(first[1].numpy(), AUGMENT(decode_rgb(root / "3.png"), 1))


def test_worker_processes_change_nothing(root: Path) -> None:
    alone, helped = (Batches(Images(root, PATHS, GEOMETRY, AUGMENT), 4, workers) for workers in (0, 2))
    for number in (0, 1):
        for (images, index), (others, other_index) in zip(epoch(alone, number), epoch(helped, number), strict=True):
            assert torch.equal(index, other_index)
            assert torch.equal(images, others)


@pytest.mark.usefixtures("large")
def test_memory_changes_nothing(root: Path) -> None:
    fresh = Images(root, PATHS, GEOMETRY, AUGMENT)
    assert not fresh.resident
    loaded = torch.cat([images for images, _ in epoch(Batches(fresh, 4, 0), 0)])
    loading._RESIDENT_SIDE = 96
    kept = Images(root, PATHS, GEOMETRY, AUGMENT)
    assert kept.resident
    batches = Batches(kept, 4, 0)
    epoch(batches, 1)
    assert torch.equal(torch.cat([images for images, _ in epoch(batches, 0)]), loaded)


def test_the_callers_generators_are_left_alone(root: Path) -> None:
    before, numpy_before = torch.random.get_rng_state(), str(np.random.get_state())  # noqa: NPY002
    for workers in (0, 2):
        epoch(Batches(Images(root, PATHS, GEOMETRY, AUGMENT), 4, workers), 0)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert str(np.random.get_state()) == numpy_before  # noqa: NPY002


@pytest.mark.parametrize(("batch_size", "sizes"), [(4, [4, 4]), (11, [11]), (5, [5, 5]), (64, [11])])
def test_drop_last_leaves_out_a_rest_but_never_everything(root: Path, batch_size: int, sizes: list[int]) -> None:
    batches = Batches(Images(root, PATHS, GEOMETRY), batch_size, 0)
    assert [len(index) for _, index in epoch(batches, 0, drop_last=True)] == sizes


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_file_that_vanished_is_one_line(root: Path, workers: int) -> None:
    batches = Batches(Images(root, PATHS, GEOMETRY), 4, workers)
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


def test_a_first_file_that_vanished_is_one_line_too(root: Path) -> None:
    (root / "0.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"0\.png: not an image"):
        Images(root, PATHS, GEOMETRY)


def _killed(_image: Image.Image, _seed: int) -> np.ndarray:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


def test_a_killed_worker_is_one_line(root: Path) -> None:
    batches = Batches(Images(root, PATHS, GEOMETRY, _killed), 4, 1)
    with pytest.raises(
        UserError, match=r"represent\.workers, .*: a process that decodes images was killed .*"
    ) as raised:
        epoch(batches, 0)
    assert "\n" not in str(raised.value)


def test_worker_processes_come_with_large_images(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Batches(Images(root, PATHS, GEOMETRY), 4)._loader.num_workers == 0
    monkeypatch.setattr(loading, "_RESIDENT_BYTES", 11 * 16 * 20 * 3 - 1)
    assert Batches(Images(root, PATHS, GEOMETRY), 4)._loader.num_workers > 0


def test_one_thumbnail_among_photographs_does_not_fill_the_memory(root: Path) -> None:
    for path in PATHS[1:]:
        Image.new("RGB", (100, 90)).save(root / path)
    images = Images(root, PATHS, GEOMETRY)
    assert not images.resident
    assert Batches(images, 4)._loader.num_workers > 0


def test_memory_is_for_small_images_up_to_its_bound_and_not_for_each_worker(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "_SAMPLE", 2)  # the first and the last image
    Image.new("RGB", (100, 90)).save(root / "5.png")
    images = Images(root, PATHS, GEOMETRY)
    assert images.resident
    images._room = 3 * 16 * 20 * 3
    epoch(Batches(images, 4, 2), 0)
    assert not images._decoded
    list(Batches(images, 4).once())
    assert sorted(images._decoded) == [0, 1, 2]
    assert len(torch.cat([index for _, index in Batches(images, 4).once()])) == 11


def test_workers_are_let_go_at_once(root: Path) -> None:
    batches = Batches(Images(root, PATHS, GEOMETRY), 4, 2)
    epoch(batches, 0)
    left = weakref.ref(batches._loader)
    gc.disable()
    try:
        del batches
        assert left() is None, "a reference cycle keeps the worker processes, and ending them then takes seconds each"
    finally:
        gc.enable()


def test_view_seeds_differ_by_image_epoch_and_seed() -> None:
    seeds = np.concatenate([view_seeds(seed, epoch, 100) for seed in (0, 1) for epoch in (0, 1)])
    assert len(np.unique(seeds)) == 400
    assert np.array_equal(view_seeds(1, 1, 100), seeds[300:])
    assert seeds.min() >= 0


def test_batches_are_made_when_their_turn_comes() -> None:
    order = _Order(3)
    assert list(order) == []
    order.drawn = np.arange(7), np.arange(7) * 10
    assert len(order) == 3
    assert list(order) == [[(0, 0), (1, 10), (2, 20)], [(3, 30), (4, 40), (5, 50)], [(6, 60)]]
    assert inspect.isgenerator(iter(order)), "10^7 pairs at once are 1.6 GB"
