"""The whole network: its preprocessing, and its file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torchvision.transforms import v2

from ltrec import artifacts
from ltrec.data.images.decoding import Geometry
from ltrec.errors import UserError
from ltrec.models import heads, network
from ltrec.models.backbones import CifarResNetBackbone
from ltrec.models.heads import LinearHead, NearestMeanHead
from ltrec.models.network import Network

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
GEOMETRY = Geometry(size=16, resize=18)
BACKBONE = CifarResNetBackbone(name="cifar_resnet8")
IMAGES = torch.randint(0, 256, (5, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def trained() -> Network:
    """With batch-norm statistics that are not those of the start."""
    torch.manual_seed(0)
    built = network.build(BACKBONE, GEOMETRY, MEAN, STD, classes=4)
    built.train()(IMAGES)
    return built.eval()


def test_normalisation_is_torchvisions() -> None:
    pixels = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1).expand(1, 16, 16, 3)
    identity: Any = nn.Identity()
    normalised = Network(identity, LinearHead(torch.ones(1, 1), None), GEOMETRY, MEAN, STD).features(pixels)
    expected = v2.functional.normalize(v2.functional.to_dtype(pixels.permute(0, 3, 1, 2), scale=True), [*MEAN], [*STD])
    torch.testing.assert_close(normalised, expected, atol=1e-6, rtol=1e-6)


def test_shapes(trained: Network) -> None:
    assert trained(IMAGES).shape == (5, 4)
    assert trained.features(IMAGES).shape == (5, 64)
    assert trained.head.dim == 64
    assert torch.equal(trained(IMAGES), trained.head(trained.features(IMAGES)))


def test_a_saved_network_gives_the_same_bits(trained: Network, tmp_path: Path) -> None:
    network.save(trained, tmp_path / "model.safetensors", backbone=BACKBONE, header={"seed": 3})
    loaded = network.load(tmp_path / "model.safetensors")
    assert not loaded.training
    assert torch.equal(loaded(IMAGES), trained(IMAGES))
    assert (loaded.geometry, loaded.mean, loaded.std) == (GEOMETRY, MEAN, STD)
    again = tmp_path / "again.safetensors"
    network.save(loaded, again, backbone=BACKBONE, header={"seed": 3})
    assert again.read_bytes() == (tmp_path / "model.safetensors").read_bytes()


def test_the_licence_of_its_weights_stays_with_it(trained: Network, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    network.save(trained, file, backbone=BACKBONE, header={})
    assert "weights_license" not in artifacts.load_tensors(file)[1]
    assert network.load(file).weights_license is None
    trained.weights_license = "cc-by-nc-4.0"
    network.save(trained, file, backbone=BACKBONE, header={})
    assert network.load(file).weights_license == "cc-by-nc-4.0"


def test_any_head_can_be_saved_with_it(trained: Network, tmp_path: Path) -> None:
    trained.head = NearestMeanHead(torch.randn(4, 64), torch.randn(64), "cl2n", "cosine")
    network.save(trained, tmp_path / "model.safetensors", backbone=BACKBONE, header={})
    assert torch.equal(network.load(tmp_path / "model.safetensors")(IMAGES), trained(IMAGES))


def test_another_head_takes_the_place(trained: Network, tmp_path: Path) -> None:
    model, head = tmp_path / "model.safetensors", tmp_path / "head.safetensors"
    network.save(trained, model, backbone=BACKBONE, header={})
    heads.save(LinearHead(torch.randn(7, 64), None), head, representation=artifacts.digest(model))
    assert network.load(model, head=head)(IMAGES).shape == (5, 7)

    network.save(trained, model, backbone=BACKBONE, header={"trained": "anew"})
    with pytest.raises(UserError, match=r"head\.safetensors: belongs to another network"):
        network.load(model, head=head)


def test_the_classes_are_those_of_the_training(trained: Network, tmp_path: Path) -> None:
    model, classes = tmp_path / "model.safetensors", tmp_path / "classes.txt"
    classes.write_text("a\nb\nc\nd\n")
    network.save(trained, model, backbone=BACKBONE, header={"classes": artifacts.digest(classes)})
    network.load(model, classes=classes)
    classes.write_text("a\nb\nd\nc\n")
    with pytest.raises(UserError, match=r"model\.safetensors: belongs to another list of classes"):
        network.load(model, classes=classes)
    network.save(trained, model, backbone=BACKBONE, header={"classes": None})  # as imported: no list was there
    network.load(model, classes=classes)
    classes.write_text("a\nb\n")
    with pytest.raises(UserError, match=r"model\.safetensors: knows 4 classes, but \S+classes\.txt names 2"):
        network.load(model, classes=classes)


def test_a_network_is_no_head_and_a_head_no_network(trained: Network, tmp_path: Path) -> None:
    model, head = tmp_path / "model.safetensors", tmp_path / "head.safetensors"
    network.save(trained, model, backbone=BACKBONE, header={})
    heads.save(trained.head, head, representation="digest")
    with pytest.raises(UserError, match=r"model\.safetensors: no linear head"):
        heads.load(model, representation="digest")
    with pytest.raises(UserError, match=r"head\.safetensors: .*no network"):
        network.load(head)


_DAMAGE: dict[str, Callable[[dict[str, torch.Tensor], dict[str, Any]], object]] = {
    "tensor missing": lambda tensors, _: tensors.pop("backbone.conv1.weight"),
    "tensor too many": lambda tensors, _: tensors.update({"backbone.more": torch.ones(1)}),
    "other shape": lambda tensors, _: tensors.update({"backbone.conv1.weight": torch.ones(2, 2)}),
    "head missing": lambda tensors, _: tensors.pop("head.weight"),
    "head of one dimension": lambda tensors, _: tensors.update({"head.weight": torch.ones(64)}),
    "other backbone": lambda _, header: header.update(backbone={"name": "cifar_resnet20"}),
    "unknown backbone": lambda _, header: header.update(backbone={"name": "cifar_resnet9000"}),
    "unknown head": lambda _, header: header.update(head="quadratic"),
    "no geometry": lambda _, header: header.pop("geometry"),
    "no options": lambda _, header: header.pop("options"),
    "no mean": lambda _, header: header.pop("mean"),
    "no std": lambda _, header: header.pop("std"),
    "std null": lambda _, header: header.update(std=None),
    "geometry null": lambda _, header: header.update(geometry=None),
    "two channels": lambda _, header: header.update(mean=[0.5, 0.5]),
}


@pytest.mark.parametrize("how", _DAMAGE)
def test_a_file_that_does_not_fit_itself_is_refused_in_one_line(trained: Network, tmp_path: Path, how: str) -> None:
    file = tmp_path / "model.safetensors"
    network.save(trained, file, backbone=BACKBONE, header={})
    tensors, header = artifacts.load_tensors(file)
    _DAMAGE[how](tensors, header)
    artifacts.save_tensors(file, tensors, header)
    with pytest.raises(UserError, match=r"model\.safetensors: ") as raised:
        network.load(file)
    assert "\n" not in str(raised.value)


def test_truncated(trained: Network, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    network.save(trained, file, backbone=BACKBONE, header={})
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(UserError, match="damaged"):
        network.load(file)


def test_on_any_device_weights_lie_channels_last(trained: Network) -> None:
    before = trained(IMAGES)
    placed = network.on_device(trained, torch.device("cpu"))
    weight = (
        placed.backbone.conv2.weight if hasattr(placed.backbone, "conv2") else placed.backbone.layer1[0].conv1.weight
    )
    assert weight.shape == (16, 16, 3, 3)
    assert weight.stride() == (144, 1, 48, 16)
    torch.testing.assert_close(placed(IMAGES), before)


def test_pixels_reach_the_backbone_channels_last() -> None:
    identity: Any = nn.Identity()
    pixels = Network(identity, LinearHead(torch.ones(1, 1), None), GEOMETRY, MEAN, STD).features(IMAGES)
    assert pixels.is_contiguous(memory_format=torch.channels_last)


def test_features_come_as_float32() -> None:
    class Doubling(nn.Module):
        def features(self, images: torch.Tensor) -> torch.Tensor:
            return 2 * images.double()

    doubling: Any = Doubling()
    features = network.predict_features(doubling, torch.ones(3, 2))
    assert features.dtype == torch.float32
    assert torch.equal(features, torch.full((3, 2), 2.0))
    assert not features.requires_grad
