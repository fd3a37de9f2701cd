"""An ONNX file made by hand, so that every figure follows from the pixels, and images to give it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
from onnx import TensorProto, helper
from PIL import Image

from ltrec.data.images.decoding import Geometry
from ltrec.serving.model_card import ModelCard

if TYPE_CHECKING:
    from pathlib import Path

CLASSES = ("red", "green", "blue, or so")
CARD = ModelCard(
    classes=CLASSES,
    geometry=Geometry(size=4, resize=4),
    mean=(0.5, 0.5, 0.5),
    std=(0.25, 0.25, 0.25),
    method="crt",
    variant="crt",
)


def write_model(
    path: Path,
    *,
    metadata: dict[str, str] | None = None,
    classes: int = 3,
    output: str = "logits",
    scale: float = 0.01,
) -> Path:
    """A model whose logits are the mean of each channel, divided by 100."""
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats", "axes"], ["means"], keepdims=0),
        helper.make_node("Mul", ["means", "hundredth"], [output]),
        helper.make_node("Softmax", [output], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", 4, 4, 3])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", classes])
            for name in (output, "probabilities")
        ],
        [
            helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2]),
            helper.make_tensor("hundredth", TensorProto.FLOAT, [], [scale]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, CARD.to_metadata() if metadata is None else metadata)
    onnx.save(model, path)
    return path


def paint(path: Path, colour: tuple[int, int, int]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 5), colour).save(path)
    return str(path)
