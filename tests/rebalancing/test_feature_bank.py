"""The feature bank's file: a plain safetensors file, whole or not there."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ltrec import artifacts
from ltrec.errors import UserError
from ltrec.rebalancing.feature_bank import FeatureBank, writing

if TYPE_CHECKING:
    from pathlib import Path

LABELS = np.array([0, 2, 1, 2, 0])
VALUES = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "featurize" / "train.safetensors"
    with writing(path, LABELS, views=2, dim=3, header={"representation": "ä", "split": "train"}) as bank:
        bank[1] = VALUES[1]
        bank[0, [4, 3, 2, 1, 0]] = VALUES[0, ::-1]
    return path


def test_what_was_written_comes_back(file: Path) -> None:
    bank = FeatureBank.open(file)
    assert np.array_equal(bank.features.numpy(), VALUES)
    assert torch.equal(bank.plain, bank.features[0])
    assert bank.labels.tolist() == LABELS.tolist()
    assert (bank.views, bank.plain.shape[1]) == (2, 3)
    assert bank.header == {"representation": "ä", "split": "train"}
    assert bank.labels.dtype == torch.int64


def test_others_can_read_it(file: Path) -> None:
    tensors = load_file(file)
    assert np.array_equal(tensors["features"].numpy(), VALUES)
    assert tensors["labels"].tolist() == LABELS.tolist()


def test_what_is_not_filled_is_zero(tmp_path: Path) -> None:
    with writing(tmp_path / "bank", LABELS, views=1, dim=2, header={}) as bank:
        bank[0, 0] = 1
    assert FeatureBank.open(tmp_path / "bank").features.sum() == 2


def test_unknown_images_can_be_left_out(tmp_path: Path, file: Path) -> None:
    labels = np.array([1, -1, 0, -1, -1])
    with writing(tmp_path / "val", labels, views=2, dim=3, header={"split": "val"}) as bank:
        bank[:] = VALUES
    known = FeatureBank.open(tmp_path / "val").known()
    assert known.labels.tolist() == [1, 0]
    assert np.array_equal(known.features.numpy(), VALUES[:, [0, 2]])
    assert known.header == {"split": "val"}
    whole = FeatureBank.open(file)
    assert whole.known() is whole


def test_an_exception_leaves_the_earlier_bank(file: Path) -> None:
    before = file.read_bytes()

    def fail() -> None:
        with writing(file, LABELS, views=1, dim=3, header={}) as bank:
            bank[0] = 1
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == [file.name]


@pytest.mark.parametrize("kept", [0, 7, 100, -1])
def test_a_truncated_bank_is_damaged(file: Path, kept: int) -> None:
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(UserError, match=r"train\.safetensors: damaged"):
        FeatureBank.open(file)


def test_another_artifact_is_no_bank(tmp_path: Path) -> None:
    artifacts.save_tensors(tmp_path / "head", {"weight": torch.ones(2)}, {"head": "linear"})
    with pytest.raises(UserError, match="no feature bank"):
        FeatureBank.open(tmp_path / "head")


def test_to_a_device_and_back(file: Path) -> None:
    bank = FeatureBank.open(file)
    moved = bank.to(torch.device("meta"))
    assert moved.features.is_meta
    assert moved.labels.is_meta
    assert moved.header == bank.header


def test_an_epochs_batches_come_in_the_order_drawn_each_from_one_of_the_views(file: Path) -> None:
    bank, drawn = FeatureBank.open(file), np.array([4, 0, 0, 3, 1, 2, 2])
    batches = list(bank.batches(drawn, 3, epoch=0, seed=0))
    assert [batch.shape for batch in batches] == [(3, 3), (3, 3)], "one image fills no batch"
    for row, image in zip(torch.cat(batches), drawn, strict=False):
        assert any(torch.equal(row, bank.features[view, image]) for view in (0, 1))
    again, later, other = (
        torch.cat(list(bank.batches(drawn, 3, epoch=e, seed=s))) for e, s in ((0, 0), (1, 0), (0, 1))
    )
    assert torch.equal(again, torch.cat(batches))
    assert not torch.equal(later, again)
    assert not torch.equal(other, again)


def test_a_full_disk_is_found_before_the_mapping_is_written(file: Path) -> None:
    # Writing to a mapping that the disk has no room for kills the process (SIGBUS).
    before = file.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"), writing(file, LABELS, views=2, dim=500, header={}):
            pytest.fail("there is no room")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]
