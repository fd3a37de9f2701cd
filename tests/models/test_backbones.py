"""Backbones: the names, the feature dimensions, and what cannot be built."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any, get_args
from urllib.error import URLError

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from safetensors.torch import save_file
from torchvision import models
from torchvision.transforms import v2

from ltrec.data.images.decoding import Geometry
from ltrec.errors import UserError
from ltrec.models import network
from ltrec.models.backbones import (
    BackboneSettings,
    CifarResNetBackbone,
    CifarResNetName,
    ResNet10Backbone,
    TorchvisionBackbone,
    TorchvisionName,
    feature_dim,
)

# One of each family that ends differently from the others.
AWKWARD = {
    "alexnet": 4096, "convnext_tiny": 768, "densenet121": 1024, "efficientnet_b0": 1280, "googlenet": 1024,
    "inception_v3": 2048, "maxvit_t": 512, "mnasnet0_5": 1280, "mobilenet_v2": 1280, "mobilenet_v3_small": 1024,
    "regnet_y_400mf": 440, "resnet18": 512, "resnext50_32x4d": 2048, "shufflenet_v2_x0_5": 1024,
    "squeezenet1_1": 512, "swin_t": 768, "swin_v2_t": 768, "vgg11": 4096, "vit_b_16": 768,
}  # fmt: skip
# Not the largest RegNets, which cannot be built without memory for their weights.
REST = sorted(
    set(get_args(TorchvisionName))
    - set(AWKWARD)
    - {f"regnet_{kind}_{size}gf" for kind in "xy" for size in (8, 16, 32, 128)}
)


def build(name: str, **more: str) -> Any:
    return TorchvisionBackbone.model_validate({"name": name, **more})


def test_the_names_are_all_of_torchvisions() -> None:
    assert set(get_args(TorchvisionName)) == set(models.list_models(module=models))


def check_shapes(name: str, dim: int | None) -> None:
    """On the meta device, where nothing is computed but shapes; RegNets compute their widths."""
    size = 32 if name.startswith("regnet") else 224
    with torch.device("cpu" if name.startswith("regnet") else "meta"):
        backbone = build(name).build(size)
        found = feature_dim(backbone, size, name)
        assert dim in {found, None}
        for training in (True, False):
            features = backbone.train(training)(torch.zeros(2, 3, size, size))
            assert features.shape == (2, found)


ALWAYS = {"resnet18", "squeezenet1_1", "vit_b_16"}


@pytest.mark.parametrize(
    ("name", "dim"),
    [pytest.param(*each, marks=() if each[0] in ALWAYS else pytest.mark.slow) for each in AWKWARD.items()],
)
def test_features_of_a_family(name: str, dim: int) -> None:
    check_shapes(name, dim)


@pytest.mark.slow
@pytest.mark.parametrize("name", REST)
def test_features_of_every_other(name: str) -> None:
    check_shapes(name, None)


@pytest.mark.parametrize("name", ["squeezenet1_1", "mobilenet_v3_small"])
def test_the_features_are_what_the_last_layer_saw(name: str) -> None:
    torch.manual_seed(0)
    whole = models.get_model(name).eval()
    torch.manual_seed(0)
    body = build(name).build(64).eval()
    images = torch.randn(2, 3, 64, 64)
    seen: list[torch.Tensor] = []
    last = whole.classifier[1 if name == "squeezenet1_1" else 3]
    last.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        whole(images)
        features = body(images)
    # SqueezeNet classifies every place and then takes the mean: here the mean of what its last layer sees.
    expected = seen[0].relu().mean(dim=(2, 3)) if name == "squeezenet1_1" else seen[0]
    torch.testing.assert_close(features, expected)


@pytest.mark.parametrize(("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85)])
def test_cifar_resnets_are_as_large_as_published(depth: int, millions: float) -> None:
    backbone = CifarResNetBackbone.model_validate({"name": f"cifar_resnet{depth}"}).build(32)
    classifier = 64 * 10 + 10
    assert round((sum(p.numel() for p in backbone.parameters()) + classifier) / 1e6, 2) == millions
    # 6n + 2 layers: the classifier is the one that is not a convolution.
    assert sum(isinstance(module, torch.nn.Conv2d) for module in backbone.modules()) == depth - 1


PAPERS = {  # blocks of the four stages, and groups
    "resnet10": ([1, 1, 1, 1], None), "resnet18": ([2, 2, 2, 2], None), "resnet34": ([3, 4, 6, 3], None),
    "resnet50": ([3, 4, 6, 3], 1), "resnet101": ([3, 4, 23, 3], 1), "resnet152": ([3, 8, 36, 3], 1),
    "resnext50_32x4d": ([3, 4, 6, 3], 32), "resnext101_32x4d": ([3, 4, 23, 3], 32),
    "resnext152_32x4d": ([3, 8, 36, 3], 32),
}  # fmt: skip


def parameters_of(stages: list[int], groups: int | None) -> int:
    """Layer by layer: weights, and two figures a channel of each batch norm (groups None: basic blocks)."""

    def conv(inside: int, outside: int, side: int, groups: int = 1) -> int:
        return inside // groups * outside * side**2 + 2 * outside

    total, inside = conv(3, 64, 7), 64
    for stage, blocks in enumerate(stages):
        planes = 64 * 2**stage
        outside = planes if groups is None else 4 * planes
        for block in range(blocks):
            if groups is None:
                total += conv(inside, planes, 3) + conv(planes, planes, 3)
            else:
                # 32 groups of 4 channels in the first stage, of twice as many in each that follows.
                width = planes if groups == 1 else 4 * groups * 2**stage
                total += conv(inside, width, 1) + conv(width, width, 3, groups) + conv(width, outside, 1)
            if block == 0 and inside != outside:
                total += conv(inside, outside, 1)
            inside = outside
    return total


@pytest.mark.parametrize("name", PAPERS)
def test_the_papers_backbones(name: str) -> None:
    stages, groups = PAPERS[name]
    settings = TypeAdapter[Any](BackboneSettings).validate_python({"name": name})
    with torch.device("meta"):
        backbone = settings.build(224)
        named = models.get_model("resnet18" if groups is None else "resnext50_32x4d").state_dict()
    assert feature_dim_on_meta(backbone) == (512 if groups is None else 2048)
    assert sum(p.numel() for p in backbone.parameters()) == parameters_of(stages, groups)
    # The names are torchvision's, so that published checkpoints fit: block numbers apart, those of its own.
    blocks = {f"layer{stage}.{block}" for stage, last in enumerate(stages, 1) for block in range(last)}
    keys = set(backbone.state_dict())
    assert {".".join(key.split(".")[:2]) for key in keys if key.startswith("layer")} == blocks
    kinds = {re.sub(r"^(layer\d\.)\d+", r"\1n", key) for key in keys}
    expected = {re.sub(r"^(layer\d\.)\d+", r"\1n", key) for key in named if not key.startswith("fc.")}
    # Of all, only ResNet-10's later basic blocks and a first stage of 64 channels differ in their shortcuts.
    assert kinds == expected


def feature_dim_on_meta(backbone: torch.nn.Module) -> int:
    with torch.device("meta"):
        return feature_dim(backbone, 64, "backbone")


@pytest.mark.parametrize("depth", [8, 20, 32, 44, 56])
def test_cifar_resnets_shortcuts_have_no_parameters(depth: int) -> None:
    # Option A (He et al. 2016, section 4.2): every second pixel, and zeros for the new channels.
    backbone = CifarResNetBackbone.model_validate({"name": f"cifar_resnet{depth}"}).build(32)
    n = (depth - 2) // 6
    convolutions = 3 * 16 + 16 * 16 * 2 * n + 16 * 32 + 32 * 32 * (2 * n - 1) + 32 * 64 + 64 * 64 * (2 * n - 1)
    norms = 2 * (16 + 16 * 2 * n + 32 * 2 * n + 64 * 2 * n)
    assert sum(p.numel() for p in backbone.parameters()) == 9 * convolutions + norms
    block: Any = backbone.get_submodule("layer2.0").eval()
    for module in block.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.zeros_(module.weight)
    pixels = torch.rand(2, 16, 6, 6)
    with torch.no_grad():
        out = block(pixels)
    assert torch.equal(out[:, 8:24], pixels[:, :, ::2, ::2])
    assert not out[:, :8].any()
    assert not out[:, 24:].any()


@pytest.mark.parametrize("name", get_args(CifarResNetName))
@pytest.mark.parametrize("size", [16, 32, 33])
def test_cifar_resnets_take_any_size(name: str, size: int) -> None:
    backbone = CifarResNetBackbone.model_validate({"name": name}).build(size)
    assert feature_dim(backbone, size, name) == 64


def test_looking_for_the_dimension_changes_nothing() -> None:
    backbone = CifarResNetBackbone(name="cifar_resnet8").build(16)
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    feature_dim(backbone, 16, "cifar_resnet8")
    assert backbone.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.state_dict().items())


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("inception_v3", 32, r"image\.size: inception_v3 does not take images of 32 px: .*Kernel size"),
        ("squeezenet1_1", 8, r"image\.size: squeezenet1_1 does not take images of 8 px"),
        ("vit_b_16", 40, r"vit_b_16 with weights None cannot be built for images of 40 px: Input shape indivisible"),
        ("maxvit_t", 64, r"maxvit_t with weights None cannot be built for images of 64 px: .*not divisible"),
    ],
)
def test_an_image_size_that_does_not_fit_is_one_line(name: str, size: int, message: str) -> None:
    with pytest.raises(UserError, match=r"^params\.yaml: represent\..*" + message) as raised:
        network.build(build(name), Geometry(size=size, resize=size), (0.5,) * 3, (0.5,) * 3, classes=2)
    assert "\n" not in str(raised.value)


def test_unknown_weights_name_those_that_there_are() -> None:
    with pytest.raises(
        UserError, match=r"weights: resnet18 has no weights 'V9'; allowed: IMAGENET1K_V1, DEFAULT, a file \(.*, null"
    ):
        build("resnet18", weights="V9").build(224)


def test_weights_out_of_reach_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_given: object, **_named: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr(models.ResNet18_Weights, "get_state_dict", no_network)
    with pytest.raises(UserError, match=r"weights 'DEFAULT' could not be fetched \(.*no route to host") as raised:
        build("resnet18", weights="DEFAULT").build(224)
    line = str(raised.value)
    assert "https://download.pytorch.org/models/resnet18-f37072fd.pth" in line
    assert f"{torch.hub.get_dir()}/checkpoints" in line
    assert "`weights: FILE`" in line
    assert "null trains from nothing" in line


def test_a_network_without_one_vector_an_image_is_one_line() -> None:
    for forward in (lambda images: images.flatten(2), lambda images: (images, images)):
        tokens: Any = torch.nn.Identity()
        tokens.forward = forward
        with pytest.raises(UserError, match=r"^params\.yaml: represent\.backbone\.name: timm/x gives .* not one v"):
            feature_dim(tokens, 8, "timm/x")


def test_the_licence_of_torchvisions_weights_is_told_where_it_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build("vit_b_16", weights="IMAGENET1K_SWAG_E2E_V1").weights_license().endswith("SWAG/blob/main/LICENSE")
    assert build("vit_b_16", weights="IMAGENET1K_V1").weights_license() is None
    assert build("vit_b_16").weights_license() is None
    fetched = models.vit_b_16(image_size=384).state_dict()
    monkeypatch.setattr(models.ViT_B_16_Weights, "get_state_dict", lambda *_given, **_named: fetched)
    settings = build("vit_b_16", weights="IMAGENET1K_SWAG_E2E_V1")
    settings.build(384)
    assert re.fullmatch(r"warning: vit_b_16: its weights have terms .*: https://\S+/LICENSE\n", capsys.readouterr().err)
    settings.build(384, pretrained=False)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("name", "weights", "makers"),
    [
        pytest.param(
            "googlenet", models.GoogLeNet_Weights, {"init_weights": False, "aux_logits": True}, marks=pytest.mark.slow
        ),
        pytest.param(
            "inception_v3", models.Inception_V3_Weights, {"init_weights": False}, marks=pytest.mark.slow
        ),
        ("mobilenet_v3_small", models.MobileNet_V3_Small_Weights, {}),
    ],
)  # fmt: skip
def test_pretrained_weights_and_a_file_of_them_give_torchvisions_features(
    name: str, weights: Any, makers: dict[str, bool], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    fetched = models.get_model(name, **makers).state_dict()
    monkeypatch.setattr(weights, "get_state_dict", lambda *_given, **_named: fetched)
    expected: Any = models.get_model(name, weights="DEFAULT").eval()
    if name.startswith("mobilenet"):
        expected.classifier[3] = torch.nn.Identity()
    else:
        expected.fc = torch.nn.Identity()
    settings = build(name, weights="DEFAULT")
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    built = network.build(settings, Geometry(size=80, resize=80), mean, std, classes=2).eval()
    images = torch.randint(0, 256, (2, 80, 80, 3), dtype=torch.uint8)
    normalised = v2.functional.normalize(images.permute(0, 3, 1, 2) / 255, [*mean], [*std])
    with torch.no_grad():
        torch.testing.assert_close(built.features(images), expected(normalised), atol=1e-4, rtol=1e-4)
        network.save(built, tmp_path / "model.safetensors", backbone=settings, header={})
        monkeypatch.setattr(weights, "get_state_dict", lambda *_given, **_named: pytest.fail("fetched again"))
        assert torch.equal(network.load(tmp_path / "model.safetensors")(images), built(images))


@pytest.mark.parametrize(
    ("weights", "is_file"),
    [
        ("weights/resnet152", True), ("resnet152.pth", True), ("resnet152.pt", True), ("a.safetensors", True),
        ("IMAGENET1K_V1", False), ("DEFAULT", False), (None, False),
    ],
)  # fmt: skip
def test_a_separator_or_a_suffix_makes_a_file(weights: str | None, is_file: bool) -> None:
    settings = TorchvisionBackbone(name="resnet152", weights=weights)
    assert settings.file == (Path(weights) if is_file and weights else None)


def test_what_torchvision_has_no_weights_for_takes_a_file_only() -> None:
    with pytest.raises(ValidationError, match=r"weights must be a file \(\.pth, .*\) or null, got 'IMAGENET1K_V1'"):
        ResNet10Backbone(name="resnet10", weights="IMAGENET1K_V1")


@pytest.mark.parametrize("file", ["weights.pth", "weights.safetensors"])
@pytest.mark.parametrize(
    ("name", "makers", "classifier"),
    [
        ("resnet18", {}, "fc"),
        ("googlenet", {"init_weights": False, "transform_input": True, "aux_logits": True}, "fc"),
        ("mobilenet_v3_small", {}, "classifier.3"),
    ],
)
def test_weights_from_a_file_give_torchvisions_features(
    name: str, makers: dict[str, bool], classifier: str, file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    whole: Any = models.get_model(name, **makers).eval()
    path = tmp_path / file
    if file.endswith("pth"):
        torch.save({"state_dict": {f"module.{key}": tensor for key, tensor in whole.state_dict().items()}}, path)
    else:
        save_file(whole.state_dict(), path)
    settings = build(name, weights=str(path))
    body = settings.build(80).eval()
    said = capsys.readouterr().err
    auxiliary = ", aux1.*, aux2.*" if name == "googlenet" else ""
    assert said == f"{path}: {classifier}.*{auxiliary} left out; the classifier is learnt anew\n"
    whole.set_submodule(classifier, torch.nn.Identity())
    images = torch.randn(2, 3, 80, 80)
    with torch.no_grad():
        assert torch.equal(body(images), whole(images))
    assert settings.digest() == hashlib.sha256(path.read_bytes()).hexdigest()
    path.unlink()
    settings.build(80, pretrained=False)  # ltrec's own file of the network needs the other no more
    assert capsys.readouterr().err == ""


def test_a_file_of_another_network_names_what_does_not_fit(tmp_path: Path) -> None:
    file = tmp_path / "resnet10.pth"
    torch.save(ResNet10Backbone(name="resnet10").build(64).state_dict() | {"head.bias": torch.ones(1)}, file)
    expected = (
        r"resnet10\.pth: does not fit the network: 40 missing: \{layer1,layer2,layer3,layer4\}\.1\..*;"
        r" 1 unexpected: head\.bias$"
    )
    with pytest.raises(UserError, match=expected):
        build("resnet18", weights=str(file)).build(64)


def test_a_file_that_is_not_there_names_the_parameter() -> None:
    with pytest.raises(UserError, match=r"^params\.yaml: represent\.backbone\.weights: no such file, got a/b\.pth$"):
        build("resnet18", weights="a/b.pth").digest()
    assert build("resnet18", weights="DEFAULT").digest() is None
