"""Whether an ONNX file computes what PyTorch computes, and whether that is near enough.

N images, H = W the side of the square, C classes.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from ltrec.errors import UserError
from ltrec.serving.model_card import OUTPUTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from ltrec.models.network import Network
    from ltrec.serving.model_card import ExportPrecision

    Images = NDArray[np.uint8]
    Logits = NDArray[np.float32]

# The batches grow, since a fixed batch of 1 or 2 is what an exporter may get wrong.
_FIRST_BATCHES, _BATCH = (1, 2), 32


class ParityError(AssertionError):
    """The ONNX file does not compute what PyTorch computes: a fault of the export, not of the user."""


class OverflowedError(ParityError):
    """The ONNX file computes numbers that are not finite, as half precision may."""


@dataclass(frozen=True)
class Parity:
    """How an ONNX file compares with PyTorch in float32 on N images.

    Attributes:
        images: The number of images N.
        largest_logit: The largest absolute logit of PyTorch's.
        logit_difference: The largest absolute difference of a logit.
        probability_difference: The largest absolute difference of a probability.
        agreement: The fraction of the images to which both give the same class.
        accuracy: The accuracy of `pytorch` and of `onnx`, the file.
        evaluated_difference: The largest absolute difference of the file's logits to those that were evaluated, made
            from the feature bank; None where there were none to compare with.
    """

    images: int
    largest_logit: float
    logit_difference: float
    probability_difference: float
    agreement: float
    accuracy: dict[str, float]
    evaluated_difference: float | None = None


def compare(
    run: Callable[[Images], tuple[Logits, Logits]],
    network: Network,
    images: Images,
    labels: NDArray[np.int64],
    advance: Callable[..., None] = lambda _done: None,
    *,
    evaluated: Logits | None = None,
) -> Parity:
    """Return how the file compares with the network on the same images, in batches of 1, 2 and then 32.

    Args:
        run: The file: returns logits and probabilities (N, C) of images.
        network: The network in evaluation mode, on the CPU.
        images: Squares, uint8 (N, H, W, 3).
        labels: Their labels, (N,).
        advance: Called with the number of images done since the last call.
        evaluated: The logits (N, C) that the variant's head gives from the feature bank's rows of the images.

    Raises:
        ParityError: the file gives other shapes.
        OverflowedError: it gives numbers that are not finite.
    """
    of_network, of_file, probabilities = [], [], []
    for batch in _batches(images):
        with torch.inference_mode():
            logits = network(torch.from_numpy(batch)).numpy()
        outputs = run(batch)
        for name, output in zip(OUTPUTS, outputs, strict=True):
            if output.shape != logits.shape:
                raise ParityError(f"a batch of {len(batch)} gives {name} of shape {output.shape}, not {logits.shape}")
            if not np.isfinite(output).all():
                raise OverflowedError(f"a batch of {len(batch)} gives {name} that are not finite")
        of_network.append(logits)
        of_file.append(outputs[0])
        probabilities.append(outputs[1])
        advance(len(batch))
    reference, logits = np.concatenate(of_network), np.concatenate(of_file)
    softmax = torch.softmax(torch.from_numpy(reference), dim=1).numpy()
    wanted, predicted = reference.argmax(1), logits.argmax(1)
    return Parity(
        images=len(images),
        largest_logit=float(np.abs(reference).max()),
        logit_difference=float(np.abs(reference - logits).max()),
        probability_difference=float(np.abs(softmax - np.concatenate(probabilities)).max()),
        agreement=float((wanted == predicted).mean()),
        accuracy={"pytorch": float((wanted == labels).mean()), "onnx": float((predicted == labels).mean())},
        evaluated_difference=None if evaluated is None else float(np.abs(evaluated - logits).max()),
    )


def _batches(images: Images) -> Iterator[Images]:
    start = 0
    for size in itertools.chain(_FIRST_BATCHES, itertools.repeat(_BATCH)):
        if start >= len(images):
            return
        yield images[start : start + size]
        start += size


def allowed_difference(parity: Parity, share: float) -> float:
    """Return the difference of a logit that is rounding: a share of the largest logit, or of 1 if that is smaller."""
    return share * max(1.0, parity.largest_logit)


def require_parity(
    parity: Parity, precision: ExportPrecision, *, max_logit_difference: float, min_agreement: float
) -> None:
    """Refuse a file that is not what was evaluated.

    Args:
        parity: How the file compares with PyTorch on validation images.
        precision: The file's precision.
        max_logit_difference: What an fp32 file may differ from PyTorch in any logit, as a share of the largest one,
            or of 1 if that is smaller: float32 itself rounds in proportion. Within it, another class can win only where
            PyTorch's two largest logits are no further apart than twice as much.
        min_agreement: The fraction of the images that a file of another precision must give PyTorch's class.

    Raises:
        UserError: The file differs more, or more often, than is allowed.
    """
    figures = (
        f"the {precision} file gives the class that PyTorch gives on {parity.agreement:.1%} of"
        f" {parity.images} val images, largest logit difference {parity.logit_difference:.2e}"
    )
    if precision == "fp32":
        allowed = allowed_difference(parity, max_logit_difference)
        if not parity.logit_difference <= allowed:
            raise UserError(
                f"{figures}; allowed: {allowed:.2e}, {max_logit_difference:g} of the largest logit"
                f" {parity.largest_logit:.3g}; nothing was written",
                where="params.yaml: export.max_logit_difference",
            )
    elif parity.agreement < min_agreement:
        accuracy = f"accuracy {parity.accuracy['onnx']:.1%} in place of {parity.accuracy['pytorch']:.1%}"
        raise UserError(
            f"{figures}, {accuracy}; wanted: {min_agreement:.1%}; nothing was written",
            where="params.yaml: export.min_agreement",
        )
