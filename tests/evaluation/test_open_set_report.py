"""The open set's table and metrics."""

from __future__ import annotations

import io
import re
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from ltrec.evaluation.open_set_report import KnownAndUnknown, OpenSetReport


def figures(threshold: float | None) -> dict[str, Any]:
    f_measure = None if threshold is None else 0.75
    own = {"auroc": 0.81, "fpr95": 0.4, "f_measure": f_measure, "threshold": threshold}
    return {"msp": own, "energy": own | {"auroc": 1.0}, "f_measure_at_0.1": 0.625}


def report(threshold: float | None = 0.51234, unknown_on_val: int = 6) -> OpenSetReport:
    variants = {name: figures(threshold) for name in ("joint", "a_variant_with_a_name_of_fifty_letters_as_is_allowed")}
    return OpenSetReport(variants, "joint", KnownAndUnknown(30, 24), KnownAndUnknown(12, unknown_on_val))


def test_images_are_counted() -> None:
    assert KnownAndUnknown.of(np.array([0, -1, 2, -1, -1])) == KnownAndUnknown(known=2, unknown=3)


def test_metrics_have_names_that_mlflow_allows() -> None:
    found = report().metrics("joint")
    assert found == {
        "openset/f_measure_at_0.1": 0.625,
        "openset/msp/auroc": 0.81, "openset/msp/fpr95": 0.4, "openset/msp/f_measure": 0.75,
        "openset/msp/threshold": 0.51234, "openset/energy/auroc": 1.0, "openset/energy/fpr95": 0.4,
        "openset/energy/f_measure": 0.75, "openset/energy/threshold": 0.51234,
    }  # fmt: skip
    assert all(re.fullmatch(r"[\w\-. /]+", name) for name in found)


def test_markdown() -> None:
    lines = report().markdown().splitlines()
    assert lines[0] == "| variant | score | AUROC | FPR95 | F-measure | threshold | F at 0.1 |"
    assert lines[2] == "| joint | msp | 81.0 | 40.0 | 75.0 | 0.5123 | 62.5 |"
    assert lines[3] == "| joint | energy | 100.0 | 40.0 | 75.0 | 0.5123 | - |"
    assert "30 known and 24 unknown test images" in lines[-1]
    assert "best F-measure on val (12 known, 6 unknown)" in lines[-1]


def test_without_a_threshold() -> None:
    lines = report(None, unknown_on_val=0).markdown().splitlines()
    assert lines[2] == "| joint | msp | 81.0 | 40.0 | - | - | 62.5 |"
    assert lines[-1].endswith("no threshold is chosen: val has no unknown images.")


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
@pytest.mark.parametrize("width", [60, 80, 140])
def test_the_table_fits_every_terminal(width: int, encoding: str) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    Console(file=stream, width=width).print(report())
    stream.seek(0)
    text = stream.read()
    assert max(map(len, text.splitlines())) <= width
    joint = next(line for line in text.splitlines() if line.startswith("joint"))
    assert joint.replace("|", " ").split() == ["joint", "msp", "81.0", "40.0", "75.0", "0.5123", "62.5"]
