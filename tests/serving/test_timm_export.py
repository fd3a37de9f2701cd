"""Networks of timm's, with random weights and small images, through the real exporter and the real onnxruntime."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import torch

from ltrec.data.images.decoding import Geometry
from ltrec.models import network as networks
from ltrec.models.timm_backbones import TimmBackbone
from ltrec.serving import onnx_export
from ltrec.serving.model_card import ModelCard
from ltrec.serving.parity import compare
from ltrec.serving.predictor import Predictor

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from ltrec.models.network import Network
    from ltrec.serving.model_card import ExportPrecision
    from ltrec.serving.parity import Parity

CLASSES = 5
COUNT = 36  # batches of 1, 2, 32 and 1
SMALL, LITE = ("timm/vit_small_patch14_dinov2.lvd142m", 56), ("timm/tf_efficientnet_lite0.in1k", 64)
BASE = ("timm/vit_base_patch14_dinov2.lvd142m", 56)
SIGLIP, CONVNEXT = ("timm/vit_base_patch16_siglip_224.webli", 64), ("timm/convnext_tiny.in12k_ft_in1k", 64)


def patches(size: int) -> NDArray[np.uint8]:
    """Return images of 2 × 2 random colours each: noise pixel by pixel would look alike to a random network."""
    colours = np.random.default_rng(0).integers(0, 256, (COUNT, 2, 2, 3)).astype(np.uint8)
    return colours.repeat(size // 2, axis=1).repeat(size // 2, axis=2)


def make_network(name: str, size: int) -> Network:
    """Return a network of random weights in which every block has a say, and batch norm has seen images."""
    torch.manual_seed(0)
    geometry = Geometry(size=size, resize=size)
    network = networks.build(TimmBackbone(name=name), geometry, (0.5,) * 3, (0.25,) * 3, CLASSES)
    with torch.no_grad():
        for parameter in network.backbone.parameters():
            if parameter.ndim == 1:  # layer scales begin at a millionth: what a block computes would not be seen
                parameter.add_(0.1 * torch.randn_like(parameter))
        network.train()(torch.from_numpy(patches(size)))
    return network.eval()


def exported(network: Network, path: Path, precision: ExportPrecision) -> Parity:
    images = patches(network.geometry.size)
    names = tuple(f"class {label}" for label in range(CLASSES))
    card = ModelCard(names, network.geometry, network.mean, network.std, "joint", "joint", precision)
    path.write_bytes(onnx_export.export(network, card, opset=20, calibration=images[:16]).SerializeToString())
    predictor = Predictor(path)
    logits, _ = predictor.run(images)
    parity = compare(predictor.run, network, images, np.zeros(COUNT, dtype=np.int64))
    assert logits.std(axis=0).max() > 2 * parity.logit_difference, "images must differ, else parity says nothing"
    return parity


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size"), [SMALL, BASE, SIGLIP, CONVNEXT, LITE])
def test_a_file_gives_pytorchs_logits_at_any_batch(name: str, size: int, tmp_path: Path) -> None:
    parity = exported(make_network(name, size), tmp_path / "model.onnx", "fp32")
    assert parity.images == COUNT
    assert parity.logit_difference <= 1e-4 * max(1, parity.largest_logit)
    assert parity.agreement == 1
    dims = onnx.load(tmp_path / "model.onnx").graph.input[0].type.tensor_type.shape.dim
    assert [dims[0].dim_param, *(dim.dim_value for dim in dims[1:])] == ["batch", size, size, 3]


# Of a random vision transformer int8 leaves too little to compare: of a trained one `export.min_agreement` decides.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "precision", "difference"),
    [(*SMALL, "fp16", 0.03), (*LITE, "fp16", 0.03), (*LITE, "int8", 0.3)],
)
def test_reduced_precision_is_near(
    name: str, size: int, precision: ExportPrecision, difference: float, tmp_path: Path
) -> None:
    network = make_network(name, size)
    parity = exported(network, tmp_path / "model.onnx", precision)
    assert 0 < parity.probability_difference < difference
    weights = sum(tensor.numel() for tensor in network.state_dict().values())
    assert (tmp_path / "model.onnx").stat().st_size < weights * (2.2 if precision == "fp16" else 1.4)
