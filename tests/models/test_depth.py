"""One notion of depth: a stem, blocks, and what lies behind the last of them."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from ltrec.errors import UserError
from ltrec.models.backbones import CifarResNetBackbone, TorchvisionBackbone
from ltrec.models.depth import Depths, depths


def of(name: str) -> Depths:
    with torch.device("meta"):
        return depths(TorchvisionBackbone.model_validate({"name": name}).build(224))


@pytest.mark.parametrize(
    ("name", "parts", "top"),
    [
        # The blocks of the architectures' papers and a stem: 12 of ViT-B, 2+2+6+2 of Swin-T, 3+3+9+3 of ConvNeXt-T.
        ("vit_b_16", 13, ["encoder.ln"]),
        ("swin_t", 13, ["norm"]),
        ("convnext_tiny", 19, ["classifier"]),
        ("maxvit_t", 12, ["classifier"]),
        ("resnet18", 5, []),
        ("resnet50", 5, []),
        ("efficientnet_b0", 9, []),
        ("densenet121", 9, []),
    ],
)
def test_parts_of_torchvisions(name: str, parts: int, top: list[str]) -> None:
    found = of(name)
    assert (len(found.parts), found.top) == (parts, top)


@pytest.mark.parametrize(
    ("name", "parts", "stem", "last", "top"),
    [
        ("vit_tiny_patch16_224", 13, ["cls_token", "pos_embed", "patch_embed"], ["blocks.11"], ["norm"]),
        ("convnext_atto", 13, ["stem"], ["stages.3.blocks.1"], ["head"]),
        ("tf_efficientnet_lite0", 9, ["conv_stem", "bn1"], ["conv_head", "bn2"], []),
        ("resnet18", 5, ["conv1", "bn1"], ["layer4"], []),
    ],
)
def test_parts_of_timms(name: str, parts: int, stem: list[str], last: list[str], top: list[str]) -> None:
    with torch.device("meta"):
        found = depths(timm.create_model(name, num_classes=0))
    assert (len(found.parts), found.parts[0], found.parts[-1], found.top) == (parts, stem, last, top)


def test_what_lies_between_two_blocks_belongs_to_the_next() -> None:
    found = of("convnext_tiny")
    assert found.parts[3:5] == [["features.1.2"], ["features.2", "features.3.0"]]


def test_depths_from_the_top_by_hand() -> None:
    found = of("vit_b_16")
    expected = {
        "encoder.ln.weight": 0,
        "encoder.layers.encoder_layer_11.mlp.0.weight": 1,
        "encoder.layers.encoder_layer_1.ln_1.bias": 11,
        "encoder.layers.encoder_layer_10.ln_1.bias": 2,
        "encoder.layers.encoder_layer_0.self_attention.in_proj_weight": 12,
        "encoder.pos_embedding": 13,
        "conv_proj.weight": 13,
        "class_token": 13,
    }
    assert {name: found.of(name) for name in expected} == expected
    found = depths(CifarResNetBackbone(name="cifar_resnet20").build(8))
    names = ("layer3.2.conv1.weight", "layer3.0.bn1.bias", "layer2.0.conv1.weight", "layer1.0.conv1.weight")
    assert [found.of(name) for name in (*names, "bn1.weight", "conv1.weight")] == [1, 1, 2, 3, 4, 4]


@pytest.mark.parametrize("name", ["vit_b_16", "swin_t", "convnext_tiny", "maxvit_t", "resnet18", "squeezenet1_1"])
def test_every_parameter_is_in_one_part_and_depth_falls_along_the_network(name: str) -> None:
    with torch.device("meta"):
        backbone = TorchvisionBackbone.model_validate({"name": name}).build(224)
    found = depths(backbone)
    seen = [found.of(parameter) for parameter, _ in backbone.named_parameters()]
    assert set(seen) == set(range(0 if found.top else 1, len(found.parts) + 1))
    assert seen == sorted(seen, reverse=True)


def test_a_network_of_single_layers_has_a_part_for_each() -> None:
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(4, 2))
    assert depths(plain) == Depths([["0"], ["2"], ["4"]], [])


@pytest.mark.parametrize(
    "name",
    [
        "edgenext_xx_small",  # only its first stage is a stack of equal blocks: the rest would be the top
        "cspresnet50",  # its stages are no sequences of PyTorch's: all would be one part
    ],
)
def test_what_is_built_otherwise_is_refused(name: str) -> None:
    with torch.device("meta"):
        network = timm.create_model(name, num_classes=0)
    with pytest.raises(UserError, match=r"represent: the depth of .* hold \d+% of its parameters; allowed .*by: name"):
        depths(network)
