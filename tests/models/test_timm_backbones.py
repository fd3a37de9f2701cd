"""timm's networks: features, image sizes and how images look to the weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config

from ltrec.data.images.decoding import Geometry, square
from ltrec.errors import UserError
from ltrec.models import network
from ltrec.models.backbones import feature_dim
from ltrec.models.network import Network
from ltrec.models.preprocessing import ImageSettings
from ltrec.models.timm_backbones import TimmBackbone

SMALL = "timm/test_vit.r160_in1k"  # a vision transformer of 0.4 million parameters: 160 px in patches of 16
LITE = "timm/tf_efficientnet_lite0.in1k"


@pytest.mark.parametrize(
    ("name", "size", "dim"),
    [
        (SMALL, 48, 64),
        (LITE, 64, 1280),
        ("timm/vit_small_patch14_dinov2.lvd142m", 56, 384),
        ("timm/vit_small_patch16_dinov3", 64, 384),
        ("timm/eva02_tiny_patch14_224", 56, 192),
        ("timm/convnext_tiny.in12k_ft_in1k", 64, 768),
        pytest.param("timm/vit_base_patch14_dinov2", 56, 768, marks=pytest.mark.slow),
        pytest.param("timm/vit_base_patch16_siglip_224.webli", 64, 768, marks=pytest.mark.slow),
        pytest.param("timm/vit_base_patch16_clip_224.openai", 64, 768, marks=pytest.mark.slow),
        pytest.param("timm/swin_tiny_patch4_window7_224", 224, 768, marks=pytest.mark.slow),
        pytest.param("timm/mobilenetv4_conv_small", 64, 1280, marks=pytest.mark.slow),
    ],
)
def test_features_of_a_size_that_is_asked_for(name: str, size: int, dim: int) -> None:
    backbone = TimmBackbone(name=name).build(size)
    assert feature_dim(backbone, size, name) == dim
    for training in (True, False):
        assert backbone.train(training)(torch.zeros(2, 3, size, size)).shape == (2, dim)


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        (SMALL, 40, r"image\.size: timm/test_vit\S+ cuts .* patches of 16 px, got 40; allowed: .* such as 32 and 48"),
        (SMALL, 8, r"image\.size: .* patches of 16 px, got 8; allowed: multiples of 16, such as 16 and 32"),
        ("timm/swin_tiny_patch4_window7_224", 10, r"swin_tiny_\S+ cuts .* patches of 4 px, got 10"),
        ("timm/test_maxvit", 100, r"timm/test_maxvit .*images of 100 px: "),
    ],
)
def test_an_image_size_that_does_not_fit_is_one_line(name: str, size: int, message: str) -> None:
    with pytest.raises(UserError, match=r"^params\.yaml: represent\..*" + message) as raised:
        network.build(TimmBackbone(name=name), Geometry(size=size, resize=size), (0.5,) * 3, (0.5,) * 3, classes=2)
    assert "\n" not in str(raised.value)


def test_without_weights_images_are_the_papers() -> None:
    assert TimmBackbone(name=LITE).preprocessing() is None


@pytest.mark.parametrize("weights", ["pretrained", "mine.pth"])
@pytest.mark.parametrize(
    ("name", "size", "resize", "crop"),
    [
        (LITE, 224, 256, "centre"),
        ("timm/vit_small_patch14_dinov2.lvd142m", 518, 518, "centre"),
        ("timm/vit_base_patch16_siglip_224.webli", 224, 248, "centre"),
        ("timm/convnext_tiny.in12k_ft_in1k_384", 384, 384, "squash"),
        ("timm/vgg11", 224, 256, "centre"),
    ],
)
def test_the_network_sees_what_timm_publishes_with_the_weights(
    name: str, size: int, resize: int, crop: str, weights: str
) -> None:
    seen = ImageSettings().completed(TimmBackbone(name=name, weights=weights).preprocessing())
    assert (seen.geometry.size, seen.geometry.resize, seen.geometry.crop) == (size, resize, crop)
    published = timm.get_pretrained_cfg(name.removeprefix("timm/")).to_dict()
    transform = create_transform(**resolve_data_config(pretrained_cfg=published))
    nothing: Any = torch.nn.Identity()
    bare = Network(nothing, nothing, seen.geometry, seen.mean, seen.std)
    pixels = np.random.default_rng(0).integers(0, 256, (301, 407, 3), dtype=np.uint8)
    ours = bare.features(torch.from_numpy(square(Image.fromarray(pixels), seen.geometry).copy())[None])[0]
    torch.testing.assert_close(ours, transform(Image.fromarray(pixels)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("timm/vit_base_patch16_sapiens2.fb", r"3 channels, 1024 × 768, .*squares"),
        ("timm/deepseek_vit_412m.deepseek_v4_1_flash", "crop border; .*crop centre or squash|crop border; .*center or"),
    ],
)
def test_images_that_are_no_squares_are_refused(name: str, words: str) -> None:
    with pytest.raises(UserError, match=rf"^params\.yaml: represent\.backbone\.name: {name}'s weights want .*{words}"):
        TimmBackbone(name=name, weights="pretrained").preprocessing()
    assert TimmBackbone(name=name).preprocessing() is None
