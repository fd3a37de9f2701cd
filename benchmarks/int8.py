"""int8 by the ways onnxruntime offers, on networks of finished projects: accuracy and time; prints JSON.

This is why `ltrec.serving.onnx_export` gives weights seven bits. On x86-64 without VNNI the kernels that multiply
unsigned activations by signed weights add two products in 16 bits and cut what does not fit; `u8s8_saturates` tells
whether those at hand do. u8s7 stands for unsigned activations of eight bits and signed weights of seven.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np
import onnxruntime
import torch
from machine import ROOT, machine, spread
from onnx import TensorProto, helper
from onnxruntime import quantization
from onnxruntime.quantization import QuantType

from ltrec import artifacts
from ltrec.artifacts import Layout
from ltrec.config import params
from ltrec.data.image_lists import read_classes, read_list
from ltrec.data.images.decoding import Geometry
from ltrec.models import network as networks
from ltrec.models.backbones import TorchvisionBackbone
from ltrec.serving import onnx_export, parity
from ltrec.serving.model_card import ModelCard
from ltrec.serving.predictor import Predictor
from ltrec.serving.sample import sample

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ltrec.models.network import Network
    from ltrec.serving.model_card import ExportPrecision

_UNSIGNED, _SIGNED = QuantType.QUInt8, QuantType.QInt8
SCHEMES: dict[str, dict[str, Any]] = {
    "u8s8": {"activation_type": _UNSIGNED, "weight_type": _SIGNED, "reduce_range": False},
    "u8s7": {"activation_type": _UNSIGNED, "weight_type": _SIGNED, "reduce_range": True},
    "u8u8": {"activation_type": _UNSIGNED, "weight_type": _UNSIGNED, "reduce_range": False},
    "s8s8": {"activation_type": _SIGNED, "weight_type": _SIGNED, "reduce_range": False},
}
_CALIBRATION = 256
_TIMED = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("projects", type=Path, nargs="*", metavar="PROJECT", help="after `rebalance` (default: this)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the JSON there, too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    projects = {}
    for project in options.projects or [ROOT]:
        with contextlib.chdir(project):
            projects[project.resolve().name] = _project()
    result = {
        "machine": machine(),
        "u8s8_saturates": _saturates(),
        "projects": projects,
        "resnet18_cpu_milliseconds_an_image": _resnet(),
    }
    text = json.dumps(result, indent=2) + "\n"
    if options.output:
        artifacts.write_text(options.output, text)
    sys.stdout.write(text)


def _saturates() -> bool:
    """Whether 2 · 255 · 127, which 16 bits cannot hold, comes out as another number."""
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["x", "w"], ["y"])], "product",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [4, 64])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, [4, 16])],
        [helper.make_tensor("w", TensorProto.INT8, [64, 16], [127] * 64 * 16)],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    [product] = session.run(None, {"x": np.full((4, 64), 255, dtype=np.uint8)})
    return bool((product != 64 * 255 * 127).any())


def _project() -> dict[str, Any]:
    """Every variant of a project by every scheme, on all images of val."""
    layout, settings = Layout(), params.load(Path("params.yaml"))
    classes, root = read_classes(layout.classes), Path(settings.prepare.source.root)
    found: dict[str, Any] = {
        "backbone": settings.represent.backbone.name,
        "epochs": settings.represent.epochs,
        "variants": {},
    }
    for variant in settings.rebalance:
        network = networks.load(layout.model, classes=layout.classes, head=layout.head(variant))
        val, train = (read_list(layout.split_list(split), len(classes)) for split in ("val", "train"))
        judged = sample(val, len(val), root, network.geometry)
        calibration = sample(train, _CALIBRATION, root, network.geometry).images
        found["variants"][variant] = {
            scheme: _compared(network, classes, scheme, calibration, judged.images, judged.labels)
            for scheme in ("fp32", *SCHEMES)
        }
    return found


def _resnet() -> dict[str, dict[str, float]]:
    """Time alone, of a network as large as those that are served; its weights are random."""
    geometry = Geometry(size=224, resize=256)
    backbone = TorchvisionBackbone(name="resnet18", weights=None)
    network = networks.build(backbone, geometry, (0.5,) * 3, (0.25,) * 3, 100).eval()
    images = np.random.default_rng(0).integers(0, 256, (32, 224, 224, 3)).astype(np.uint8)
    classes = tuple(map(str, range(100)))
    files = {scheme: _exported(network, classes, scheme, images) for scheme in ("fp32", *SCHEMES)}
    taken: dict[str, list[float]] = {scheme: [] for scheme in files}
    for _ in range(_TIMED):  # in turn, so that the machine's other work meets all alike
        for scheme, file in files.items():
            taken[scheme].append(_milliseconds(file, images))
    return {scheme: spread(times) for scheme, times in taken.items()}


def _exported(network: Network, classes: tuple[str, ...], scheme: str, calibration: NDArray[np.uint8]) -> Predictor:
    precision: ExportPrecision = "fp32" if scheme == "fp32" else "int8"
    card = ModelCard(classes, network.geometry, network.mean, network.std, "joint", "joint", precision)
    original = quantization.quantize_static

    def quantize(*files: Any, **options: Any) -> None:
        original(*files, **options | SCHEMES[scheme])

    with mock.patch.object(quantization, "quantize_static", quantize), tempfile.TemporaryDirectory() as folder:
        model = onnx_export.export(network, card, opset=20, calibration=calibration)
        file = Path(folder, "model.onnx")
        file.write_bytes(model.SerializeToString())
        return Predictor(file, threads=1)


def _compared(
    network: Network, classes: tuple[str, ...], scheme: str, calibration: NDArray[np.uint8],
    images: NDArray[np.uint8], labels: NDArray[np.int64],
) -> dict[str, float]:  # fmt: skip
    reached = parity.compare(_exported(network, classes, scheme, calibration).run, network, images, labels)
    return {
        "accuracy": reached.accuracy["onnx"],
        "agreement": reached.agreement,
        "logit_difference": reached.logit_difference,
        "largest_logit": reached.largest_logit,
    }


def _milliseconds(predictor: Predictor, images: NDArray[np.uint8]) -> float:
    """Processor time of an image, on one thread."""
    start = time.process_time()
    predictor.run(images)
    return (time.process_time() - start) / len(images) * 1000


if __name__ == "__main__":
    main()
