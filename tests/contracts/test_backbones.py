"""What every family of backbones does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from ltrec.data.images.decoding import Geometry
from ltrec.models import network
from ltrec.models.backbones import BackboneSettings, feature_dim
from tests.contracts.members import examples, through_yaml

if TYPE_CHECKING:
    from pathlib import Path

    from ltrec.models.network import Network

SIZE = 32
IMAGES = torch.randint(0, 256, (4, SIZE, SIZE, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))

# Of torchvision's and timm's many a small one.
each = pytest.mark.parametrize(
    "settings",
    [
        pytest.param(settings, marks=pytest.mark.slow if settings.name.startswith("resnext") else (), id=settings.name)
        for settings in examples(BackboneSettings, prefer=("squeezenet1_1", "timm/tf_efficientnet_lite0.in1k"))
    ],
)


def build(settings: Any, seed: int = 0) -> Network:
    torch.manual_seed(seed)
    return network.build(settings, Geometry(size=SIZE, resize=SIZE), (0.5,) * 3, (0.25,) * 3, classes=3)


@each
def test_yaml_round_trip(settings: Any) -> None:
    assert through_yaml(settings, BackboneSettings) == settings


@each
def test_one_vector_an_image_of_the_dimension_that_was_found(settings: Any) -> None:
    built = build(settings)
    dim = feature_dim(built.backbone, SIZE, settings.name)
    for training in (True, False):
        features = built.train(training).features(IMAGES)
        assert features.shape == (4, dim)
        assert features.dtype == torch.float32
    assert built.head.dim == dim


@each
def test_an_image_is_seen_alone_as_in_company(settings: Any) -> None:
    built = build(settings).eval()
    with torch.no_grad():
        together, alone = built.features(IMAGES), torch.cat([built.features(image[None]) for image in IMAGES])
    torch.testing.assert_close(alone, together, atol=1e-5, rtol=1e-4)


@each
def test_every_parameter_of_the_backbone_learns(settings: Any) -> None:
    built = build(settings).train()
    built(IMAGES).square().sum().backward()
    for name, parameter in built.backbone.named_parameters():
        assert parameter.grad is not None, name
    assert any(parameter.grad.abs().sum() > 0 for parameter in built.backbone.parameters())  # type: ignore[union-attr]


@each
def test_the_seed_decides_the_first_weights(settings: Any) -> None:
    first, again, other = (build(settings, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(tensor, again[name]) for name, tensor in first.items())
    assert any(not torch.equal(tensor, other[name]) for name, tensor in first.items())


@each
def test_a_saved_network_gives_the_same_bits(settings: Any, tmp_path: Path) -> None:
    built = build(settings).eval()
    network.save(built, tmp_path / "model.safetensors", backbone=settings, header={})
    with torch.no_grad():
        assert torch.equal(network.load(tmp_path / "model.safetensors")(IMAGES), built(IMAGES))
