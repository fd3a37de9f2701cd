"""How a file compares with PyTorch, and what is near enough."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import nn

from ltrec.errors import UserError
from ltrec.serving.parity import OverflowedError, Parity, ParityError, compare, require_parity

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ltrec.serving.model_card import ExportPrecision

GOOD = Parity(100, 1.0, 1e-6, 1e-7, 1.0, {"pytorch": 0.9, "onnx": 0.9})


class Constant(nn.Module):
    """The same logits for every image."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.tensor([[1.0, 3.0, 2.0]]).expand(len(images), 3)


def test_compare_counts_by_hand() -> None:
    sizes = []

    def run(images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        sizes.append(len(images))
        logits = np.tile(np.float32([1, 3, 2]), (len(images), 1))
        logits[images[:, 0, 0, 0] == 1] += np.float32([0, 0, 1.5])  # the last class wins
        return logits, torch.softmax(torch.from_numpy(logits), dim=1).numpy()

    images = np.zeros((40, 2, 2, 3), np.uint8)
    images[:10] = 1
    labels = np.r_[np.full(5, 2), np.full(35, 1)].astype(np.int64)
    evaluated = np.tile(np.float32([1, 3, 2.25]), (40, 1))
    reached = compare(run, Constant(), images, labels, evaluated=evaluated)  # type: ignore[arg-type]
    assert sizes == [1, 2, 32, 5]
    assert reached.logit_difference == 1.5
    assert reached.largest_logit == 3
    assert reached.evaluated_difference == 1.25
    assert reached.agreement == 30 / 40
    # PyTorch hits the 35 of class 1; the file the first 5, of class 2, and the last 30.
    assert reached.accuracy == {"pytorch": 35 / 40, "onnx": 35 / 40}
    e1, e2, e3, e35 = np.exp([1, 2, 3, 3.5])
    assert reached.probability_difference == pytest.approx(e35 / (e1 + e3 + e35) - e2 / (e1 + e2 + e3), abs=1e-6)


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (np.full((1, 3), np.nan, np.float32), OverflowedError, "a batch of 1 gives logits that are not finite"),
        (np.zeros((1, 4), np.float32), ParityError, r"gives logits of shape \(1, 4\), not \(1, 3\)"),
    ],
)
def test_compare_refuses_other_shapes_and_what_is_not_finite(
    wrong: NDArray[np.float32], error: type[Exception], message: str
) -> None:
    images = np.zeros((1, 2, 2, 3), np.uint8)
    with pytest.raises(error, match=message):
        compare(lambda _: (wrong, wrong), Constant(), images, np.zeros(1, np.int64))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("parity", "precision", "limits", "error"),
    [
        (GOOD, "fp32", {}, None),
        (Parity(100, 0.5, 1.1e-4, 0, 1, {}), "fp32", {}, UserError),
        (Parity(100, 0.5, 1.1e-4, 0, 1, {}), "fp32", {"max_logit_difference": 1e-3}, None),
        # As float32 rounds for large logits; a tie may then fall either way.
        (Parity(100, 150.0, 2.1e-4, 0, 0.99, {}), "fp32", {}, None),
        (Parity(100, 150.0, 1.6e-2, 0, 1, {}), "fp32", {}, UserError),
        (Parity(100, 1.0, float("nan"), 0, 1, {}), "fp32", {}, UserError),
        (Parity(100, 9.0, 0.3, 0.1, 0.95, {}), "int8", {}, None),
        (Parity(100, 9.0, 0.3, 0.1, 0.94, {"pytorch": 0.9, "onnx": 0.8}), "int8", {}, UserError),
        (Parity(100, 9.0, 0.3, 0.1, 0.94, {}), "fp16", {"min_agreement": 0.9}, None),
    ],
)
def test_what_is_good_enough(
    parity: Parity, precision: ExportPrecision, limits: dict[str, float], error: type[Exception] | None
) -> None:
    with pytest.raises(error) if error else contextlib.nullcontext():
        require_parity(parity, precision, **{"max_logit_difference": 1e-4, "min_agreement": 0.95} | limits)
