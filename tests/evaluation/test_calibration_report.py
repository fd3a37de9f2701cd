"""The calibration's table."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from ltrec.evaluation.calibration import Calibration, RiskCoverage
from ltrec.evaluation.calibration_report import CalibrationReport

LONG = "a_variant_with_a_name_of_fifty_letters_as_is_allowed"


def report() -> CalibrationReport:
    nothing = RiskCoverage(*2 * (None,), 0.0)  # type: ignore[arg-type] - no curve is shown here
    figures = {"nll": 0.41234, "ece": 0.0312, "classwise_ece": 0.000123, "aurc": 0.0099}
    return CalibrationReport({name: Calibration(figures, [], nothing) for name in ("joint", LONG)}, "joint")


def test_markdown() -> None:
    lines = report().markdown().splitlines()
    assert lines[0] == "| variant | NLL | ECE | class-wise ECE | AURC |"
    assert lines[1] == "| --- | ---: | ---: | ---: | ---: |"
    assert lines[2] == "| joint | 0.412 | 3.12 | 0.0123 | 0.99 |"
    assert "every class counting the same" in lines[-1]


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
@pytest.mark.parametrize("width", [60, 80, 140])
def test_the_table_fits_every_terminal(width: int, encoding: str) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    Console(file=stream, width=width).print(report())
    stream.seek(0)
    text = stream.read()
    assert max(map(len, text.splitlines())) <= width
    joint = next(line for line in text.splitlines() if line.startswith("joint"))
    assert joint.replace("|", " ").split() == ["joint", "0.412", "3.12", "0.0123", "0.99"]
