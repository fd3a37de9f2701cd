"""timm's networks: features, image sizes, preprocessing, weights from a file and from the hub, licences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from pydantic import ValidationError
from safetensors.torch import save_file
from timm.data import create_transform, resolve_data_config

from ltrec.data.images.decoding import Geometry, square
from ltrec.errors import UserError
from ltrec.models import network, timm_backbones
from ltrec.models.backbones import feature_dim
from ltrec.models.hub import FetchError
from ltrec.models.network import Network
from ltrec.models.preprocessing import ImageSettings
from ltrec.models.timm_backbones import TimmBackbone, license_warning
from tests.shared import shared

if TYPE_CHECKING:
    from pathlib import Path

SMALL = "timm/test_vit.r160_in1k"  # a vision transformer of 0.4 million parameters: 160 px in patches of 16
LITE = "timm/tf_efficientnet_lite0.in1k"


def build(name: str, size: int, **weights: str) -> torch.nn.Module:
    return TimmBackbone(name=name, **weights).build(size)


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
    backbone = build(name, size)
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


def weights_of(name: str, file: Path) -> Path:
    """Write random weights of a whole network of timm's, its classifier too, as others publish theirs."""
    torch.manual_seed(0)
    tensors = timm.create_model(name.removeprefix("timm/")).state_dict()
    if file.suffix == ".safetensors":
        save_file(tensors, file)
    else:
        torch.save({"state_dict": {f"module.{key}": tensor for key, tensor in tensors.items()}}, file)
    return file


def timms_own(name: str, file: Path, **sized: int) -> torch.nn.Module:
    """Return the network as timm itself loads it from a file."""
    overlay = {"file": str(file)}
    made: torch.nn.Module = timm.create_model(
        name.removeprefix("timm/"), pretrained=True, pretrained_cfg_overlay=overlay, num_classes=0, **sized
    )
    return made.eval()


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
@pytest.mark.parametrize("size", [160, 96])
def test_a_files_position_embeddings_are_interpolated_to_the_size(
    size: int, suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = weights_of(SMALL, tmp_path / f"weights.{suffix}")
    body = build(SMALL, size, weights=str(file)).eval()
    assert capsys.readouterr().err == f"{file}: head.* left out; the classifier is learnt anew\n"
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        torch.testing.assert_close(body(images), timms_own(SMALL, file, img_size=size)(images))


@pytest.mark.parametrize(
    ("name", "left_out"),
    [("timm/test_convnext", "head.fc.*"), ("timm/caformer_s18", "head.fc.*"), (LITE, "classifier.*")],
)
def test_of_a_file_only_the_classifier_is_left_out(
    name: str, left_out: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = weights_of(name, tmp_path / "weights.safetensors")
    body = build(name, 64, weights=str(file)).eval()
    assert f"{left_out} left out" in capsys.readouterr().err
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(body(images), timms_own(name, file)(images))


def test_another_trainings_network_serves_as_weights(tmp_path: Path) -> None:
    settings, file = TimmBackbone(name=SMALL), tmp_path / "model.safetensors"
    geometry = Geometry(size=48, resize=48)
    trained = network.build(settings, geometry, (0.5,) * 3, (0.5,) * 3, classes=2).eval()
    network.save(trained, file, backbone=settings, header={})
    body = build(SMALL, 48, weights=str(file)).eval()
    images = torch.randn(2, 3, 48, 48)
    with torch.no_grad():
        assert torch.equal(body(images), trained.backbone(images))


@pytest.mark.parametrize("other", ["timm/test_vit3.r160_in1k", LITE])
def test_a_file_of_another_network_names_what_does_not_fit(other: str, tmp_path: Path) -> None:
    file = weights_of(other, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=r"other\.safetensors: does not fit ") as raised:
        build(SMALL, 96, weights=str(file))
    assert "\n" not in str(raised.value)


def test_real_weights_from_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    file = shared("weights/tf_efficientnet_lite0.safetensors")
    settings = TimmBackbone(name=LITE, weights=str(file))
    body = settings.build(224).eval()
    assert capsys.readouterr().err == f"{file}: classifier.* left out; the classifier is learnt anew\n"
    images = torch.rand(2, 3, 224, 224)
    with torch.no_grad():
        features = body(images)
        torch.testing.assert_close(features, timms_own(LITE, file)(images))
    assert features.shape == (2, 1280)


@pytest.mark.parametrize("size", [160, 96])
def test_fetched_weights_are_as_timm_loads_them(size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = weights_of(SMALL, tmp_path / "model.safetensors")
    asked: list[Any] = []
    monkeypatch.setattr(timm_backbones, "fetched", lambda *given: asked.append(given) or str(file))
    settings = TimmBackbone(name=SMALL, weights="pretrained")
    assert settings.digest() is None
    built = network.build(settings, Geometry(size=size, resize=size), (0.5,) * 3, (0.5,) * 3, classes=2).eval()
    assert asked == [("timm/test_vit.r160_in1k", ("model.safetensors", "pytorch_model.bin"))]
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        assert torch.equal(built.backbone(images), timms_own(SMALL, file, img_size=size)(images))
    network.save(built, tmp_path / "network.safetensors", backbone=settings, header={})
    again = network.load(tmp_path / "network.safetensors")  # which needs the hub no more
    assert len(asked) == 1
    assert again.weights_license == "apache-2.0"
    with torch.no_grad():
        assert torch.equal(again.backbone(images), built.backbone(images))


def test_a_damaged_file_in_the_cache_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"half of it")
    monkeypatch.setattr(timm_backbones, "fetched", lambda *_given: str(tmp_path / "model.safetensors"))
    with pytest.raises(UserError, match=r"model\.safetensors: damaged \(.*\); delete it, and it is fetched anew$"):
        build(SMALL, 160, weights="pretrained")


def refuse(monkeypatch: pytest.MonkeyPatch, status: int | None) -> None:
    """Let the hub be out of reach, or refuse with a status of HTTP."""
    reason: Any = ConnectionError("no route to host")
    if status is not None:
        reason.response = type("Response", (), {"status_code": status})()

    def fail(repository: str, names: tuple[str, ...]) -> str:
        raise FetchError(f"{names[0]} of https://huggingface.co/{repository}", "some/cache", reason)

    monkeypatch.setattr(timm_backbones, "fetched", fail)


def test_weights_out_of_reach_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, None)
    with pytest.raises(
        UserError, match=r"^params\.yaml: represent\.backbone\.weights: .*\(no route to host\)"
    ) as raised:
        build(SMALL, 160, weights="pretrained")
    line = str(raised.value)
    wanted = ("model.safetensors of https://huggingface.co/timm/test_vit.r160_in1k", "some/cache", "`weights: FILE`")
    assert [words for words in (*wanted, "null trains from nothing") if words not in line] == []


@pytest.mark.parametrize("status", [401, 403])
def test_gated_weights_say_where_their_terms_are_accepted(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, status)
    with pytest.raises(UserError, match=r"backbone\.weights: .*accept its terms.*HF_TOKEN.*weights: FILE") as raised:
        build(SMALL, 160, weights="pretrained")
    assert "https://huggingface.co/timm/test_vit.r160_in1k" in str(raised.value)


def test_weights_that_timm_fetches_itself_are_named_by_their_url(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_given: object, **_named: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(UserError, match=rf"\(no route to host\).*https://github\.com/\S+\.pth.*{tmp_path}/checkpoints"):
        build("timm/legacy_seresnet18.in1k", 64, weights="pretrained")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("apache-2.0", ""),
        ("mit", ""),
        ("cc-by-4.0", ""),
        ("cc-by-nc-4.0", "not for commercial use"),
        ("fair-noncommercial-research-license", "not for commercial use"),
        ("dinov3-license", "terms of their own"),
        ("apple-ascl", "terms of their own"),
        (None, "no licence is stated"),
        ("unknown", "no licence is stated"),
    ],
)
def test_what_a_licence_calls_for(name: str | None, words: str) -> None:
    warning = license_warning(name)
    assert words in warning
    assert bool(warning) == bool(words)


def test_a_restrictive_licence_is_said_when_weights_are_fetched(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    refuse(monkeypatch, None)
    name = "timm/vit_small_patch16_dinov3"
    with pytest.raises(UserError):
        build(name, 64, weights="pretrained")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: {name}: its weights have terms of their own")
    assert "dinov3-license" in line
    assert line.endswith("https://huggingface.co/timm/vit_small_patch16_dinov3.lvd1689m")
    assert TimmBackbone(name=name, weights="pretrained").weights_license() == "dinov3-license"
    assert TimmBackbone(name=name, weights="mine.pth").weights_license() is None, "whose that file is nobody knows"
    build(name, 64)
    assert capsys.readouterr().err == ""


def test_a_network_that_the_installed_timm_lacks_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timm_backbones.timm_names, "has_weights", lambda _name: True)
    settings = TimmBackbone(name=SMALL, weights="pretrained").model_copy(update={"name": "timm/vit_of_yesterday"})
    for refused in (settings.preprocessing, lambda: settings.build(64)):
        with pytest.raises(UserError, match=r"^params\.yaml: represent\.backbone\.name: timm \d.*vit_of_yesterday"):
            refused()


def test_weights_that_nobody_publishes_are_refused() -> None:
    with pytest.raises(
        ValidationError, match=r"weights must be a file \(.*\) or null, got pretrained: timm publishes none"
    ):
        TimmBackbone(name="timm/test_coatnet", weights="pretrained")
    with pytest.raises(ValidationError, match=r"weights must be pretrained, a file \(.*\) or null, got 'r160_in1k'"):
        TimmBackbone(name=SMALL, weights="r160_in1k")
