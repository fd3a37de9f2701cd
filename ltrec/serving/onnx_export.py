"""Exporting a network as one ONNX file, in three precisions.

N images, H = W the side of the square, C classes, D features.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ltrec.errors import UserError
from ltrec.serving.model_card import INPUT, OUTPUTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import onnx
    from numpy.typing import NDArray

    from ltrec.models.network import Network
    from ltrec.serving.model_card import ModelCard

    Images = NDArray[np.uint8]

# Protobuf, and so a single ONNX file, ends at 2 GiB; some of it is the graph.
_LARGEST_BYTES = 2**31 - 2**24
_BATCH = 32


def export(network: Network, card: ModelCard, *, opset: int, calibration: Images | None = None) -> onnx.ModelProto:
    """Return the network as an ONNX model with a dynamic batch, whose metadata is the card.

    The card's precision is the backbone's. Normalisation, head and softmax stay float32: distances to class means
    overflow half precision, and few-shot classes live in small differences of the logits.

    Args:
        network: The network, which stays as it is.
        card: The metadata, the precision included.
        opset: The version of ONNX's operators.
        calibration: Squares, uint8 (N, H, W, 3), that give int8 the ranges of the activations; never test images.

    Raises:
        UserError: the network is too large for one file.
    """
    size = sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
    if size > _LARGEST_BYTES:
        raise UserError(
            f"the network has {size / 2**30:.1f} GiB of weights; one ONNX file holds at most 2 GiB",
            where="params.yaml: represent.backbone",
        )
    model = _trace(network, half=card.precision == "fp16", opset=opset)
    if card.precision == "int8":
        assert calibration is not None, "int8 needs images to calibrate with"
        model = _quantize(model, calibration)
    _clean(model)
    for key, value in card.to_metadata().items():
        model.metadata_props.add(key=key, value=value)
    return model


class _Half(nn.Module):
    """A module that computes in half precision between float32 neighbours."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module.half()

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x.half()).float()  # type: ignore[no-any-return]


class _Served(nn.Module):
    """A network that gives logits and probabilities, both (N, C), of images, uint8 (N, H, W, 3)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.network(images)
        return logits, torch.softmax(logits, dim=1)


# How the exporter marks nodes that come from the backbone of a `_Served` network.
_SCOPES = "pkg.torch.onnx.name_scopes"
_BACKBONE_SCOPE = "'network.backbone'"


def _trace(network: Network, *, half: bool, opset: int) -> onnx.ModelProto:
    served: Any = copy.deepcopy(network).cpu().eval()
    if half:
        # Not onnxruntime.transformers.float16: its casts go around every single node that stays float32, so
        # that the normalised pixels pass through half precision too. Ten times the logit error on digits.
        served.backbone = _Half(served.backbone)
    side = network.geometry.size
    # A batch of 2: an example of 1 would be taken for a constant.
    example = torch.zeros(2, side, side, 3, dtype=torch.uint8)
    with _silence(), torch.no_grad():
        program = torch.onnx.export(
            _Served(served).eval(),
            (example,),
            dynamo=True,
            dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
            input_names=[INPUT],
            output_names=list(OUTPUTS),
            opset_version=opset,
            external_data=False,
            verbose=False,
        )
    assert program is not None, "the exporter gives a program"
    return program.model_proto


def _quantize(model: onnx.ModelProto, calibration: Images) -> onnx.ModelProto:
    """Return the model with the backbone's nodes in int8, each channel with a scale of its own.

    Weights take seven of the eight bits, −64 … 64. On x86-64 without VNNI (before Ice Lake and Zen 4) onnxruntime adds
    two products of an unsigned activation and a signed weight in 16 bits, and what does not fit is cut: with eight bits
    a ResNet-32 gave another class than in float32 on 15 % of CIFAR-10's images, though where it was exported, with
    VNNI, on 2 % only. With seven 2 · 255 · 64 fits, and every processor computes the same. `benchmarks/int8.py`
    measures what that costs and what else there is.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_static
    from onnxruntime.quantization.calibrate import CalibrationDataReader
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            starts = range(0, len(calibration), _BATCH)
            self._batches = (calibration[start : start + _BATCH] for start in starts)

        def get_next(self) -> dict[str, Images] | None:
            batch = next(self._batches, None)
            return None if batch is None else {INPUT: batch}

    excluded = [node.name for node in model.graph.node if not _is_of_backbone(node)]
    with tempfile.TemporaryDirectory(prefix="ltrec-") as folder, _silence():
        traced, prepared, quantized = (Path(folder, f"{step}.onnx") for step in ("traced", "prepared", "quantized"))
        onnx.save(model, traced)
        # The exporter has written every shape already, and the symbolic inference fails on its Expand nodes.
        quant_pre_process(traced, prepared, skip_symbolic_shape=True)
        # Unsigned activations: with signed ones onnxruntime leaves ReLU and residual sums in float32, and a
        # ResNet-18 takes three times as long.
        quantize_static(
            prepared,
            quantized,
            Reader(),
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=excluded,
        )
        return onnx.load(quantized)


def _is_of_backbone(node: onnx.NodeProto) -> bool:
    return any(entry.key == _SCOPES and _BACKBONE_SCOPE in entry.value for entry in node.metadata_props)


def _clean(model: onnx.ModelProto) -> None:
    """Drop the exporter's notes: stack traces with paths of the machine, a third of a small file."""
    graph = model.graph
    del model.metadata_props[:], graph.metadata_props[:]
    model.doc_string = graph.doc_string = ""
    for parts in (graph.node, graph.input, graph.output, graph.value_info, graph.initializer):
        for part in parts:
            del part.metadata_props[:]
            part.doc_string = ""


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Suppress warnings and log lines, which the exporters write about their own inner ways."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
