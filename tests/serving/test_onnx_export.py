"""Every head through the real exporter and the real onnxruntime, on scanned digits and on noise."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from ltrec.data.images.decoding import Geometry
from ltrec.errors import UserError
from ltrec.models import heads
from ltrec.models.heads.nearest_mean import Transform, transformed
from ltrec.models.network import Network
from ltrec.serving import onnx_export
from ltrec.serving.model_card import ModelCard
from ltrec.serving.parity import allowed_difference, compare
from ltrec.serving.predictor import Predictor

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from ltrec.serving.model_card import ExportPrecision

DIM, CLASSES, SIDE = 8, 10, 16
GEOMETRY = Geometry(size=SIDE, resize=SIDE)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def digit_images(count: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Scans of 8 × 8 with 17 grey values, each pixel as 2 × 2, as RGB."""
    bundle = load_digits()
    grey = (bundle.images[:count] * 15).astype(np.uint8).repeat(2, axis=1).repeat(2, axis=2)
    return np.stack([grey] * 3, axis=-1), bundle.target[:count].astype(np.int64)


IMAGES, LABELS = digit_images(100)
NOISE = np.random.default_rng(0).integers(0, 256, (35, SIDE, SIDE, 3)).astype(np.uint8)


class Pooled(nn.Module):
    """A small backbone with what the exporter rewrites: batch normalisation, a residual sum, a mean."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, DIM, 3, stride=2, padding=1)
        self.bn = nn.BatchNorm2d(DIM)
        self.inner = nn.Conv2d(DIM, DIM, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.bn(self.conv(x)))
        return torch.relu(x + self.inner(x)).mean(dim=(2, 3))


def make_network(kind: str) -> Network:
    """Random convolutions, whose features a head of this kind classifies by the means of the digits' classes."""
    torch.manual_seed(1)
    network = Network(Pooled(), heads.LinearHead.drawn(CLASSES, DIM), GEOMETRY, MEAN, STD)
    network.train()
    with torch.no_grad():
        network(torch.from_numpy(IMAGES))  # batch statistics that are not 0 and 1
        features = network.eval().features(torch.from_numpy(IMAGES))
    network.head = make_head(kind, features)
    return network.eval()


def make_head(kind: str, features: torch.Tensor) -> heads.Head:
    def means(transform: Transform) -> torch.Tensor:
        z = transformed(features, center, transform)
        return torch.stack([z[torch.from_numpy(LABELS) == label].mean(dim=0) for label in range(CLASSES)])

    center = features.mean(dim=0)
    raw = means("un")
    # The nearest raw mean, written as a linear classifier.
    weight, bias = 2 * raw, -raw.square().sum(dim=1)
    # Without a bias what all images share must not decide: rows at right angles to it.
    apart = raw - center
    apart -= (apart @ center / center.square().sum())[:, None] * center
    made: dict[str, heads.Head] = {
        "linear": heads.LinearHead(weight, bias),
        "without_bias": heads.LinearHead(apart, None),
        "scaled": heads.ScaledHead(weight, bias, torch.linspace(1, 1.01, CLASSES)),
        "scaled_but_for_the_bias": heads.ScaledHead(weight, bias, torch.linspace(1, 1.01, CLASSES), scale_bias=False),
        "cosine": heads.CosineHead(apart, 30.0).shifted(torch.linspace(0, 0.1, CLASSES)),
        "nearest_un": heads.NearestMeanHead(raw, center, "un", "euclidean"),
        "nearest_l2n_cosine": heads.NearestMeanHead(means("l2n"), center, "l2n", "cosine"),
        "nearest_cl2n": heads.NearestMeanHead(means("cl2n"), center, "cl2n", "euclidean"),
    }
    unit = torch.nn.functional.normalize(features[:90], dim=1)
    made["knn"] = heads.KnnHead(
        unit - unit.mean(dim=0), unit.mean(dim=0), torch.from_numpy(LABELS[:90]), torch.linspace(0.5, 2, CLASSES),
        neighbours=7, sharpness=0.3,
    )  # fmt: skip
    made["disalign"] = heads.DisAlignHead(
        weight, bias, torch.linspace(1, 1.01, CLASSES), torch.linspace(0, 0.1, CLASSES), center, torch.tensor(-1.0)
    )
    made["ensemble"] = heads.EnsembleHead(
        [made["disalign"], made["knn"], made["cosine"].shifted(bias)], torch.tensor([0.5, 0.2, 0.3])
    )
    head = made[kind]
    # The other heads' logits are close together.
    head.temperature.fill_(1 if kind in {"knn", "ensemble"} else 0.1)
    return head


def card(precision: ExportPrecision = "fp32") -> ModelCard:
    names = tuple(f"digit {label}" for label in range(CLASSES))
    return ModelCard(names, GEOMETRY, MEAN, STD, "crt", "crt", precision, "abc123")


def export(network: Network, path: Path, precision: ExportPrecision = "fp32", **options: Any) -> Predictor:
    model = onnx_export.export(network, card(precision), **{"opset": 20} | options)
    path.write_bytes(model.SerializeToString())
    return Predictor(path)


@pytest.fixture(scope="module")
def network() -> Network:
    return make_network("scaled")


@pytest.fixture(scope="module")
def exported(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    export(network, path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    [
        "linear",
        "without_bias",
        "scaled",
        "scaled_but_for_the_bias",
        "cosine",
        "nearest_un",
        "nearest_l2n_cosine",
        "nearest_cl2n",
        "knn",
        "disalign",
        "ensemble",
    ],
)
def test_every_head_gives_pytorchs_logits(kind: str, tmp_path: Path) -> None:
    network = make_network(kind)
    predictor = export(network, tmp_path / "model.onnx")
    for images in (IMAGES, NOISE):
        parity = compare(predictor.run, network, images, LABELS[: len(images)])
        # Neighbours of these random features are 10⁻⁴ apart: an export's own bound, a share of the largest logit.
        assert parity.logit_difference <= (allowed_difference(parity, 1e-4) if kind == "knn" else 1e-4)
        assert parity.probability_difference <= 1e-5
        assert parity.agreement == 1
        assert parity.images == len(images)
    with torch.inference_mode():
        classes = network(torch.from_numpy(IMAGES)).argmax(dim=1)
    assert len(classes.unique()) > 2, "the images must tell classes apart, else the comparison says nothing"


@pytest.mark.parametrize("count", [1, 2, 3, 50])
def test_the_batch_is_dynamic(exported: Path, count: int) -> None:
    predictor = Predictor(exported)
    whole, _ = predictor.run(IMAGES)
    logits, probabilities = predictor.run(IMAGES[:count])
    assert logits.shape == probabilities.shape == (count, CLASSES)
    assert logits == pytest.approx(whole[:count], abs=1e-5)
    assert probabilities.sum(axis=1) == pytest.approx(np.ones(count))


def test_one_file_with_the_contract(exported: Path) -> None:
    assert [file.name for file in exported.parent.iterdir()] == ["model.onnx"]
    model = onnx.load(exported)
    onnx.checker.check_model(model, full_check=True)
    [images], (logits, probabilities) = model.graph.input, model.graph.output
    kinds = onnx.TensorProto
    assert (images.name, images.type.tensor_type.elem_type) == ("images", kinds.UINT8)
    dims = images.type.tensor_type.shape.dim
    assert [dims[0].dim_param, *(dim.dim_value for dim in dims[1:])] == ["batch", SIDE, SIDE, 3]
    assert [output.name for output in (logits, probabilities)] == ["logits", "probabilities"]
    assert {output.type.tensor_type.elem_type for output in (logits, probabilities)} == {kinds.FLOAT}
    assert model.opset_import[0].version == 20
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(metadata["classes"])[:2] == ["digit 0", "digit 1"]
    assert json.loads(metadata["preprocessing"]) == {
        "colour": "RGB",
        "resize": SIDE,
        "size": SIDE,
        "interpolation": "bilinear",
        "mean": list(MEAN),
        "std": list(STD),
    }
    assert (metadata["method"], metadata["variant"]) == ("crt", "crt")
    assert "commit" not in metadata, "the same inputs give the same file; MLflow's run names the commit"


def test_no_path_of_this_machine_in_the_file(exported: Path) -> None:
    content = exported.read_bytes()
    assert b'File "' not in content
    assert __file__.encode() not in content


def test_the_same_bits_again_and_the_network_untouched(network: Network, exported: Path, tmp_path: Path) -> None:
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network.train()
    try:
        export(network, tmp_path / "again.onnx")
        assert network.training
    finally:
        network.eval()
    assert (tmp_path / "again.onnx").read_bytes() == exported.read_bytes()
    after = network.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


@pytest.mark.slow
@pytest.mark.parametrize("opset", [18, 23])
def test_other_opsets(network: Network, tmp_path: Path, opset: int) -> None:
    predictor = export(network, tmp_path / "model.onnx", opset=opset)
    assert onnx.load(tmp_path / "model.onnx").opset_import[0].version == opset
    assert compare(predictor.run, network, IMAGES, LABELS).logit_difference <= 1e-4


# A half-precision number is off by 2^-12 of itself at most, an int8 one by 2^-8 of the channel's largest.
@pytest.mark.slow
@pytest.mark.parametrize(("precision", "difference"), [("fp16", 0.02), ("int8", 0.2)])
@pytest.mark.parametrize("kind", ["scaled", "nearest_cl2n"])
def test_reduced_precision_halves_the_backbone_only(
    kind: str, precision: ExportPrecision, difference: float, tmp_path: Path
) -> None:
    network = make_network(kind)
    predictor = export(network, tmp_path / "model.onnx", precision, calibration=IMAGES[50:])
    parity = compare(predictor.run, network, IMAGES[:50], LABELS[:50])
    assert 1e-5 < parity.probability_difference < difference
    assert parity.agreement >= 0.9
    weights = onnx.load(tmp_path / "model.onnx").graph.initializer
    low = [tensor for tensor in weights if tensor.data_type in {onnx.TensorProto.FLOAT16, onnx.TensorProto.INT8}]
    assert len(low) >= 2
    if precision == "int8":
        # Kernels without VNNI add two products with activations up to 255 in 16 bits.
        largest = max(abs(onnx.numpy_helper.to_array(tensor).astype(int)).max() for tensor in low)
        assert 2 * 255 * largest < 2**15
    logits, probabilities = predictor.run(IMAGES[:5])
    assert (logits.dtype, probabilities.dtype) == (np.float32, np.float32)
    wanted = torch.softmax(torch.from_numpy(logits), dim=1).numpy()
    assert probabilities == pytest.approx(wanted, abs=1e-6), "softmax is in float32"
    assert predictor.card.precision == precision
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]


class Large(nn.Module):
    """A head of 2.4 GiB, without the memory."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(20_000, 32_000, device="meta"))


def test_a_network_above_two_gigabytes_is_refused() -> None:
    with pytest.raises(UserError, match=r"represent.backbone: the network has 2\.4 GiB of weights; .* at most 2 GiB"):
        onnx_export.export(Large(), card(), opset=20)  # type: ignore[arg-type]
