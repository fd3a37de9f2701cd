"""Batches on the device: the same views however they are shared, kept or sent."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from ltrec.compute.distributed import World
from ltrec.data.images import device_loader as feeding
from ltrec.data.images.augmentation import AugmentSettings, NoCrop, PadCrop
from ltrec.data.images.dataset import ImageDataset
from ltrec.data.images.decoding import Geometry, decode_rgb, square
from ltrec.data.images.device_loader import DeviceLoader, crop_seeds, step_draws
from ltrec.data.images.erasing import Cutout
from ltrec.data.images.policies import TrivialAugment
from ltrec.errors import UserError
from tests.data.images.conftest import PATHS

if TYPE_CHECKING:
    from pathlib import Path

    from ltrec.data.images.augmentation import Augment

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # on a single core

GEOMETRY = Geometry(size=12, resize=14)
CPU = torch.device("cpu")
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
AUGMENTS: dict[str, Augment | None] = {
    "resized": AugmentSettings(jitter=0.3).build(),
    "padded": AugmentSettings(crop=PadCrop(padding=2), jitter=0.3).build(),
    "policy": AugmentSettings(crop=PadCrop(padding=2), policy=TrivialAugment(), erase=Cutout(size=4)).build(MEAN, STD),
    "plain": AugmentSettings(crop=NoCrop(), flip=False).build(),
    "none": None,
}
each = pytest.mark.parametrize("augment", AUGMENTS.values(), ids=AUGMENTS)


def loader(root: Path, augment: Augment | None = None, size: int = 4, **options: Any) -> DeviceLoader:
    return DeviceLoader((root, PATHS), GEOMETRY, CPU, size, augment=augment, **options)


def epoch(source: DeviceLoader, number: int = 0, *, drop_last: bool = False) -> list[tuple[torch.Tensor, torch.Tensor]]:
    order = np.random.default_rng(number).permutation(len(PATHS))
    return list(source.epoch(order, (0, number), drop_last=drop_last))


def same(first: list[Any], second: list[Any]) -> bool:
    return len(first) == len(second) and all(
        torch.equal(one, other) for pair in zip(first, second, strict=True) for one, other in zip(*pair, strict=True)
    )


def test_evaluation_is_the_square_of_each_image_in_order(root: Path) -> None:
    batches = list(loader(root).once())
    assert [len(index) for _, index in batches] == [4, 4, 3]
    assert torch.cat([index for _, index in batches]).tolist() == list(range(11))
    expected = np.stack([square(decode_rgb(root / path), GEOMETRY) for path in PATHS])
    assert np.array_equal(torch.cat([images for images, _ in batches]).numpy(), expected)


@pytest.mark.slow
@each
def test_what_is_kept_and_who_decodes_change_nothing(
    augment: Augment | None, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = loader(root, augment)
    first, again, later = epoch(kept), epoch(kept), epoch(kept, 1)
    assert same(first, again)
    assert not same(first, later)
    monkeypatch.setattr(feeding, "_RESIDENT_BYTES", 0)
    for workers in (0, 2):
        streamed = loader(root, augment, workers=workers)
        assert same(epoch(streamed), first)
        assert same(epoch(streamed, 1), later), "whatever epoch came before"


@each
@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("resident", [True, False])
def test_ranks_share_each_batch_without_overlap(
    augment: Augment | None, count: int, resident: bool, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = epoch(loader(root, augment))
    monkeypatch.setattr(feeding, "_RESIDENT_BYTES", 2**30 if resident else 0)
    shares = [epoch(loader(root, augment, world=World(rank, count))) for rank in range(count)]
    assert {len(share) for share in shares} == {3}, "ranks make the same steps, even if there is nothing left for one"
    for step, (images, index) in enumerate(whole):
        for rank, share in enumerate(shares):
            assert torch.equal(share[step][1], index[rank::count])
            # Processors multiply batches of other sizes in another order.
            torch.testing.assert_close(share[step][0].float(), images[rank::count].float(), rtol=0, atol=1e-3)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_rank_reads_and_keeps_only_its_own_squares_of_a_set_shown_in_order(
    count: int, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, read = list(loader(root).once()), list[int]()
    real = ImageDataset.__getitem__
    monkeypatch.setattr(ImageDataset, "__getitem__", lambda self, item: read.append(item[0]) or real(self, item))
    for rank in range(count):
        kept = loader(root, world=World(rank, count))
        shares = [list(kept.once()), list(kept.once())]
        own = [index for _, batch in whole for index in batch[rank::count].tolist()]
        assert sorted(read) == own, "once each"
        assert kept._kept is not None
        assert len(kept._kept.squares) == len(own)
        for share in shares:
            assert same(share, [(images[rank::count], index[rank::count]) for images, index in whole])
        read.clear()
        assert same(epoch(kept), [(i[rank::count], n[rank::count]) for i, n in epoch(loader(root))]), (
            "any order will do"
        )
        read.clear()


RANK = """
import sys
from pathlib import Path
import torch
from ltrec.compute.distributed import joined
from ltrec.data.images.decoding import Geometry
from ltrec.data.images.device_loader import DeviceLoader
cpu, folder = torch.device("cpu"), Path(sys.argv[1])
paths = [f"{n}.png" for n in range(11)]
with joined(cpu) as world:
    loader = DeviceLoader((folder, paths), Geometry(size=12, resize=14), cpu, 4, world=world)
    for _ in range(2):
        batches = [world.gather(images, n) for (images, _), n in zip(loader.once(), (4, 4, 3), strict=True)]
    assert len(loader._kept.squares) < 11
    if world.first:
        torch.save(torch.cat(batches), sys.argv[2])
"""


@pytest.mark.slow
def test_two_processes_together_have_the_squares_of_one(root: Path, tmp_path: Path) -> None:
    (tmp_path / "rank.py").write_text(RANK, encoding="utf-8")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    subprocess.run(
        [*torchrun, tmp_path / "rank.py", root, tmp_path / "squares.pt"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}, check=True,
    )  # fmt: skip
    expected = torch.cat([images for images, _ in loader(root).once()])
    assert torch.equal(torch.load(tmp_path / "squares.pt", weights_only=True), expected)


def test_what_fits_is_read_once(root: Path) -> None:
    kept = loader(root, AUGMENTS["padded"])
    before = epoch(kept)
    shutil.rmtree(root)
    assert same(epoch(kept), before)


@pytest.mark.parametrize("options", [{"augment": AUGMENTS["resized"]}, {"several_epochs": False}])
def test_what_is_not_wanted_again_or_cropped_anew_is_not_kept(options: dict[str, Any], root: Path) -> None:
    source = loader(root, **options)
    epoch(source)
    shutil.rmtree(root)
    with pytest.raises(UserError, match="cannot be read"):
        epoch(source)


@pytest.mark.parametrize(("batch_size", "sizes"), [(4, [4, 4]), (11, [11]), (5, [5, 5]), (64, [11])])
def test_drop_last_leaves_out_a_rest_but_never_everything(root: Path, batch_size: int, sizes: list[int]) -> None:
    assert [len(index) for _, index in epoch(loader(root, size=batch_size), drop_last=True)] == sizes


def test_worker_processes_come_with_many_pixels_and_are_shared_by_a_machines_ranks(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def workers(**options: Any) -> int:
        batches = loader(root, **options)._batches
        assert batches is not None
        return batches._loader.num_workers

    monkeypatch.setattr(feeding, "cores", lambda: 8)
    assert workers() == 0
    monkeypatch.setattr(feeding, "_FEW_BYTES", 11 * 12 * 12 * 3 - 1)
    assert workers() == 8
    assert workers(world=World(0, 16, local_size=4)) == 2
    assert workers(world=World(0, 16, local_size=16)) == 1
    assert workers(workers=3) == 3


def test_crop_seeds_differ_by_image_epoch_and_seed() -> None:
    seeds = np.concatenate([crop_seeds((seed, epoch), 100) for seed in (0, 1) for epoch in (0, 1)])
    assert len(np.unique(seeds)) == 400
    assert np.array_equal(crop_seeds((1, 1), 100), seeds[300:])
    assert seeds.min() >= 0


def test_draws_belong_to_the_place_in_the_epoch() -> None:
    whole = step_draws((1, 2), 0, 50, 3)
    assert np.array_equal(np.concatenate([step_draws((1, 2), 0, 7, 3), step_draws((1, 2), 7, 50, 3)]), whole)
    assert len(np.unique(whole)) == 150
    assert not np.intersect1d(whole, step_draws((1, 3), 0, 50, 3)).size
