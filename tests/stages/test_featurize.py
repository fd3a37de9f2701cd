"""The feature bank holds what the network gives, row by row."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from ltrec import artifacts
from ltrec.artifacts import SPLITS, Layout
from ltrec.data.image_lists import read_list
from ltrec.data.images.decoding import decode_rgb, square
from ltrec.errors import UserError
from ltrec.models import network
from ltrec.rebalancing.feature_bank import FeatureBank
from ltrec.stages import featurize

if TYPE_CHECKING:
    from collections.abc import Callable

    from ltrec.config.params import Params

    Build = Callable[..., Params]

LAYOUT = Layout()
pytestmark = [
    pytest.mark.usefixtures("featurized"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),  # on a single core
]


@pytest.mark.parametrize("split", SPLITS)
def test_row_by_row_what_the_network_gives(split: artifacts.Split) -> None:
    bank, listed = FeatureBank.open(LAYOUT.features(split)), read_list(LAYOUT.split_list(split), 3)
    trained = network.load(LAYOUT.model)
    assert bank.labels.tolist() == listed.labels.tolist()
    pixels = np.stack([square(decode_rgb(Path("data", path)), trained.geometry) for path in listed.paths])
    with torch.no_grad():
        expected = trained.features(torch.from_numpy(pixels))
    torch.testing.assert_close(bank.plain, expected, atol=1e-5, rtol=1e-5)
    images = artifacts.digest(LAYOUT.split_digest(split))
    made_from = {"representation": artifacts.digest(LAYOUT.model), "images": images}
    assert bank.header == {**made_from, "split": split}


def test_features_are_float32s_whatever_the_representation_was_learnt_in(params: Build) -> None:
    before = LAYOUT.features("val").read_bytes()
    learnt_in_bf16 = params().represent.model_dump() | {"precision": "bf16"}
    featurize.run(params(represent=learnt_in_bf16))
    assert LAYOUT.features("val").read_bytes() == before
    featurize.run(params(featurize={"precision": "bf16"}))
    rounded = FeatureBank.open(LAYOUT.features("val")).plain
    assert LAYOUT.features("val").read_bytes() != before
    assert rounded.dtype == torch.float32


def test_only_train_has_augmented_views_and_they_differ(params: Build) -> None:
    assert [FeatureBank.open(LAYOUT.features(split)).views for split in SPLITS] == [2, 1, 1]
    featurize.run(params(featurize={"views": 3}))
    bank = FeatureBank.open(LAYOUT.features("train"))
    assert bank.views == 4
    distinct = {view.numpy().tobytes() for view in bank.features}
    assert len(distinct) == 4
    # Augmented, not something else: nearer to the same image's plain features than to those of most others.
    distances = torch.cdist(bank.features[1], bank.plain)
    assert (distances.diagonal() < distances.median(dim=1).values).float().mean() > 0.9


def test_views_come_in_addition_to_those_that_were_there(params: Build) -> None:
    two = FeatureBank.open(LAYOUT.features("train")).features.clone()
    featurize.run(params(featurize={"views": 2}))
    torch.testing.assert_close(FeatureBank.open(LAYOUT.features("train")).features[:2], two)


@pytest.mark.slow
def test_the_same_bytes_twice_with_workers_or_without(params: Build) -> None:
    before = {split: LAYOUT.features(split).read_bytes() for split in SPLITS}
    featurize.run(params(featurize={"workers": 2}))
    assert {split: LAYOUT.features(split).read_bytes() for split in SPLITS} == before


def test_batches_of_any_size_give_the_same_features(params: Build) -> None:
    before = FeatureBank.open(LAYOUT.features("train")).features.clone()
    featurize.run(params(featurize={"batch_size": 3}))
    torch.testing.assert_close(FeatureBank.open(LAYOUT.features("train")).features, before, atol=1e-5, rtol=1e-5)


def test_the_network_is_left_as_it_was(params: Build) -> None:
    before = LAYOUT.model.read_bytes()
    featurize.run(params())
    assert LAYOUT.model.read_bytes() == before


def test_a_file_that_vanished_leaves_the_earlier_bank(params: Build) -> None:
    before = LAYOUT.features("val").read_bytes()
    gone = read_list(LAYOUT.split_list("val"), 3).paths[-1]
    Path("data", gone).unlink()
    with pytest.raises(UserError, match=r"cannot be read \(No such file"):
        featurize.run(params())
    assert LAYOUT.features("val").read_bytes() == before
    assert not list(LAYOUT.features("val").parent.glob("*.tmp")) + list(LAYOUT.features("val").parent.glob(".*"))


def test_a_network_of_other_classes_is_refused(params: Build) -> None:
    LAYOUT.classes.write_text("blue\ngreen\nrose\n")
    LAYOUT.split_digest("train").write_text("other images\n")
    with pytest.raises(UserError, match=r"model\.safetensors: belongs to another list of classes .*`ltrec represent`"):
        featurize.run(params())


def test_classes_may_be_renamed_and_images_may_come(params: Build) -> None:
    before = LAYOUT.features("val").read_bytes()
    names = LAYOUT.classes.read_text()
    LAYOUT.classes.write_text("blue\ngreen\nrose\n")
    featurize.run(params())
    assert LAYOUT.features("val").read_bytes() == before
    LAYOUT.classes.write_text(names)
    LAYOUT.split_digest("train").write_text("other images\n")
    featurize.run(params())


def test_without_a_network_its_stage_is_named(params: Build) -> None:
    LAYOUT.model.unlink()
    with pytest.raises(UserError, match=r"model\.safetensors: no such file; `ltrec represent`"):
        featurize.run(params())


def test_features_that_are_not_finite_name_the_network(params: Build) -> None:
    tensors, header = artifacts.load_tensors(LAYOUT.model)
    tensors["backbone.bn1.weight"][0] = float("inf")
    artifacts.save_tensors(LAYOUT.model, tensors, header)
    before = LAYOUT.features("train").read_bytes()
    with pytest.raises(
        UserError, match=r"^artifacts/represent/model\.safetensors: its features of train .* not finite"
    ):
        featurize.run(params())
    assert LAYOUT.features("train").read_bytes() == before


def test_more_than_the_gpu_holds_is_one_line(params: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(network, "predict_features", full)
    with pytest.raises(UserError, match=r"^params\.yaml: featurize\.batch_size: 10 images at a time need more memory"):
        featurize.run(params())
