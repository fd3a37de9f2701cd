"""Preprocessing: what a user leaves out comes with the weights, and equals torchvision's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from torchvision import models

from ltrec.data.images.decoding import Geometry, square
from ltrec.errors import UserError
from ltrec.models.backbones import CifarResNetBackbone, TorchvisionBackbone
from ltrec.models.network import Network
from ltrec.models.preprocessing import IMAGENET, ImageSettings, Preprocessing

V1, V2 = (TorchvisionBackbone(name="resnet50", weights=f"IMAGENET1K_V{n}") for n in (1, 2))


def test_without_weights_it_is_the_papers() -> None:
    assert CifarResNetBackbone(name="cifar_resnet8").preprocessing() is None
    assert TorchvisionBackbone(name="resnet50").preprocessing() is None
    assert TorchvisionBackbone(name="resnet50", weights="mine.pth").preprocessing() is None
    assert ImageSettings().completed() == IMAGENET
    assert IMAGENET.geometry == Geometry(size=224, resize=256, interpolation="bilinear")


def test_named_weights_bring_their_own() -> None:
    assert ImageSettings().completed(V1.preprocessing()).geometry == Geometry(size=224, resize=256)
    assert ImageSettings().completed(V2.preprocessing()).geometry == Geometry(size=224, resize=232)
    swag = TorchvisionBackbone(name="vit_b_16", weights="IMAGENET1K_SWAG_E2E_V1").preprocessing()
    assert ImageSettings().completed(swag).geometry == Geometry(size=384, resize=384, interpolation="bicubic")
    other = TorchvisionBackbone(name="efficientnet_v2_l", weights="DEFAULT").preprocessing()
    assert ImageSettings().completed(other).mean == (0.5, 0.5, 0.5)


def test_squashing_comes_with_the_weights_unless_the_middle_is_wanted() -> None:
    squashed = Preprocessing(Geometry(size=8, resize=8, crop="squash"), IMAGENET.mean, IMAGENET.std)
    assert ImageSettings().completed(squashed).geometry.crop == "squash"
    assert ImageSettings(crop="centre").completed(squashed).geometry.crop == "centre"
    assert ImageSettings(crop="centre").differing(squashed) == ["crop centre, not squash"]
    assert ImageSettings(crop="squash").completed().geometry == Geometry(size=224, resize=256, crop="squash")


def test_what_is_set_goes_before_and_the_short_side_follows_the_size() -> None:
    published = V2.preprocessing()
    assert ImageSettings(size=112).completed(published).geometry == Geometry(size=112, resize=116)
    assert ImageSettings(size=64).completed().geometry == Geometry(size=64, resize=73)
    chosen = ImageSettings(resize=256, interpolation="bicubic", std=(0.2, 0.2, 0.2)).completed(published)
    assert chosen.geometry == Geometry(size=224, resize=256, interpolation="bicubic")
    assert chosen.std == (0.2, 0.2, 0.2)
    assert chosen.mean == (0.485, 0.456, 0.406)


def test_only_what_differs_from_the_weights_is_told() -> None:
    published = V2.preprocessing()
    assert published is not None
    assert ImageSettings().differing(published) == []
    assert ImageSettings(size=224, interpolation="bilinear").differing(published) == []
    assert ImageSettings(resize=256, mean=(0.5, 0.5, 0.5)).differing(published) == [
        "resize 256, not 232",
        "mean 0.5, 0.5, 0.5, not 0.485, 0.456, 0.406",
    ]


def test_a_crop_larger_than_the_image_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"must be at least size \(224\), got 128"):
        ImageSettings(size=224, resize=128)
    with pytest.raises(UserError, match=r"represent.image.resize: must be at least size \(here 224.*got 128"):
        ImageSettings(resize=128).completed(V2.preprocessing())


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("resnet50", "IMAGENET1K_V1"),
        ("resnet50", "IMAGENET1K_V2"),
        ("efficientnet_b3", "IMAGENET1K_V1"),
        ("efficientnet_b1", "IMAGENET1K_V2"),
        ("swin_v2_t", "IMAGENET1K_V1"),
        ("vgg16", "IMAGENET1K_FEATURES"),
    ],
)
def test_the_network_sees_what_torchvision_publishes_with_the_weights(name: Any, weights: str) -> None:
    published = TorchvisionBackbone(name=name, weights=weights).preprocessing()
    transform = models.get_model_weights(name)[weights].transforms()
    seen = ImageSettings().completed(published)
    network = Network(torch.nn.Identity(), torch.nn.Identity(), seen.geometry, seen.mean, seen.std)  # type: ignore[arg-type]
    pixels = np.random.default_rng(0).integers(0, 256, (301, 407, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    ours = network.features(torch.from_numpy(square(image, seen.geometry).copy())[None])[0]
    wanted = transform(image)
    # Normalised as x·a + b where torchvision computes (x − m)/s: float32 rounds differently, by up to 255 for VGG's.
    assert torch.allclose(ours, wanted, rtol=1e-5, atol=1e-5 * float(wanted.abs().max()))
