"""What is frozen, by name and by depth, and that it stays so."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
import torch

from ltrec.data.images.decoding import Geometry
from ltrec.errors import UserError
from ltrec.models import network
from ltrec.models.backbones import CifarResNetBackbone, TorchvisionBackbone
from ltrec.models.freezing import FreezeByDepth, FreezeByName
from ltrec.training.optim import AdamW, Sgd

if TYPE_CHECKING:
    from torch import nn

    from ltrec.models.network import Network

IMAGES = torch.randint(0, 256, (6, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def torchvisions(name: str) -> nn.Module:
    with torch.device("meta"):
        return TorchvisionBackbone.model_validate({"name": name}).build(224)


def encoder_layer(number: int) -> str:
    return f"encoder.layers.encoder_layer_{number}"


def by_name(*modules: str) -> FreezeByName:
    return FreezeByName(by="name", modules=[*modules])


def by_depth(trained: int) -> FreezeByDepth:
    return FreezeByDepth(by="depth", trained=trained)


@pytest.mark.parametrize(
    ("name", "trained", "frozen"),
    [
        ("resnet152", 1, ["conv1", "bn1", "layer1", "layer2", "layer3"]),  # Places-LT
        ("resnet18", 3, ["conv1", "bn1", "layer1"]),
        ("resnet18", 0, ["conv1", "bn1", "layer1", "layer2", "layer3", "layer4"]),
        # The last two of twelve blocks and the norm behind them train.
        ("vit_b_16", 2, ["class_token", "conv_proj", "encoder.pos_embedding", *map(encoder_layer, range(10))]),
        (
            "vit_b_16",
            0,
            ["class_token", "conv_proj", "encoder.pos_embedding", *map(encoder_layer, range(12)), "encoder.ln"],
        ),
        (
            "swin_t",
            2,
            [
                "features.0",
                "features.1.0",
                "features.1.1",
                "features.2",
                "features.3.0",
                "features.3.1",
                "features.4",
                *(f"features.5.{block}" for block in range(6)),
            ],
        ),
        # All of a SqueezeNet's parameters are in `features`: its parts are counted.
        ("squeezenet1_1", 6, ["features.0", "features.3", "features.4"]),
    ],
)
def test_by_depth(name: str, trained: int, frozen: list[str]) -> None:
    assert by_depth(trained).frozen(torchvisions(name)) == frozen


def test_a_depth_that_freezes_nothing_lists_what_there_is() -> None:
    message = (
        r"^params\.yaml: represent\.freeze\.trained: 5 of the backbone's 5 parts would freeze nothing:"
        r" conv1 \+ bn1, layer1, layer2, layer3, layer4; allowed: 0 to 4$"
    )
    with pytest.raises(UserError, match=message):
        by_depth(5).frozen(torchvisions("resnet18"))


def test_one_more_part_trains_every_other_epoch_down_to_the_stem() -> None:
    settings = FreezeByDepth(by="depth", trained=1, unfreeze_every=2)
    backbone = torchvisions("resnet18")
    stem, layers = ["conv1", "bn1"], ["layer1", "layer2", "layer3"]
    expected = [layers[:3], layers[:3], layers[:2], layers[:2], layers[:1], layers[:1], [], []]
    assert [settings.frozen(backbone, epoch) for epoch in range(10)] == [stem + part for part in expected] + [[], []]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "layer5",
            "'layer5' matches nothing in the backbone; at its top has conv1, bn1, layer1, layer2, layer3, layer4",
        ),
        ("layer4.0.conv3", "'layer4.0.conv3' matches nothing in the backbone; layer4.0 has conv1, bn1, conv2, bn2,"),
        ("layer9.0.conv1", "'layer9.0.conv1' matches nothing in the backbone; at its top has conv1,"),
        ("layer", "'layer' matches nothing in the backbone; at its top has conv1,"),
        ("relu", "'relu' matches nothing in the backbone; at its top has conv1,"),
    ],
)
def test_a_name_that_matches_nothing_lists_what_there_is(name: str, said: str) -> None:
    with pytest.raises(UserError) as raised:
        by_name("conv1", name).frozen(torchvisions("resnet18"))
    assert str(raised.value).startswith(f"params.yaml: represent.freeze.modules: {said}")


def built() -> Network:
    torch.manual_seed(0)
    return network.build(
        CifarResNetBackbone(name="cifar_resnet8"), Geometry(size=16, resize=16), (0.5,) * 3, (0.5,) * 3, classes=2
    )


@pytest.mark.parametrize("optimizer", [Sgd(lr=0.1, weight_decay=0.1), AdamW(lr=0.1, weight_decay=0.1)])
def test_neither_gradients_nor_decay_nor_statistics_reach_what_is_frozen(optimizer: Any) -> None:
    trained = built()
    trained.freeze(by_name("conv1", "bn1", "layer1", "layer2.0.bn1").frozen(trained.backbone))
    before = copy.deepcopy(trained.backbone.state_dict())
    descent = optimizer.build(trained.backbone, trained.head)
    for _ in range(2):
        trained.train()
        trained(IMAGES).square().sum().backward()
        descent.step()
    frozen = ("conv1.", "bn1.", "layer1.", "layer2.0.bn1.")
    assert all(p.grad is None for name, p in trained.backbone.named_parameters() if name.startswith(frozen))
    for name, tensor in trained.backbone.state_dict().items():
        assert torch.equal(tensor, before[name]) is name.startswith(frozen), name
    # What is frozen computes as in evaluation, by the statistics that it has.
    assert not trained.backbone.bn1.training  # type: ignore[union-attr]
    assert trained.backbone.layer3.training  # type: ignore[union-attr]


def test_the_mode_comes_and_goes_around_what_is_frozen() -> None:
    trained = built()
    trained.freeze(["bn1"])
    assert [module.training for module in (trained, trained.head, trained.backbone.bn1)] == [True, True, False]  # type: ignore[union-attr, list-item]
    trained.eval()
    assert not any(module.training for module in trained.modules())
    copied = copy.deepcopy(trained).train()
    assert [name for name, module in copied.named_modules() if not module.training] == ["backbone.bn1"]
