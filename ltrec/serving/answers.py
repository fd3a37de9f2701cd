"""What the model says of images, and how `predict` prints it. C classes."""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ltrec import artifacts, console

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

    from ltrec.serving.model_card import ModelCard

Format = Literal["table", "json", "csv"]

_DIGITS = 6
# What may be said of an image, and the field of the card that has the threshold for it.
_DOUBTS = {"unknown": "unknown_below", "abstained": "abstain_below"}


@dataclass(frozen=True)
class Prediction:
    """What the model says of one image."""

    file: Path
    probabilities: NDArray[np.float32] | None
    """Float32 (C,); None: there is none."""
    problem: str = ""
    """Why there is none."""
    read: bool = True
    """Whether the image could be read."""
    unknown: bool = False
    """Whether it shows none of the classes, as far as the model's threshold tells."""
    abstained: bool = False
    """Whether it shows one of them, and which one is too doubtful for an answer by the model's threshold."""


def _ranked(prediction: Prediction, classes: tuple[str, ...], top: int) -> list[tuple[str, float]]:
    """Return the most probable classes with their probabilities, best first."""
    assert prediction.probabilities is not None
    best = np.argsort(-prediction.probabilities, kind="stable")[:top]
    return [(classes[label], round(float(prediction.probabilities[label]), _DIGITS)) for label in best]


def _doubts(prediction: Prediction, card: ModelCard) -> dict[str, bool]:
    """Return what is said of an image where the model has a threshold for it, by name."""
    return {name: getattr(prediction, name) for name, field in _DOUBTS.items() if getattr(card, field) is not None}


def _write_table(predictions: Iterable[Prediction], card: ModelCard, top: int) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table("image", "class", "probability", *(["then"] if top > 1 else []))
    table.columns[2].justify = "right"
    for column in table.columns:
        column.overflow = "fold"
    for prediction in predictions:
        (best, probability), *others = _ranked(prediction, card.classes, top)
        doubt = "unknown" if prediction.unknown else "abstained" if prediction.abstained else ""
        verdict = f"{doubt} ({best}?)" if doubt else best
        cells = [str(prediction.file), verdict, f"{probability:.1%}"]
        if top > 1:
            cells.append(", ".join(f"{name} {value:.1%}" for name, value in others))
        table.add_row(*(Text(console.printable(cell)) for cell in cells))
    if table.row_count:
        console.show(table)


def _write_json(predictions: Iterable[Prediction], card: ModelCard, top: int) -> None:
    before = "[\n"
    for prediction in predictions:
        ranked = [{"class": name, "probability": value} for name, value in _ranked(prediction, card.classes, top)]
        entry: dict[str, Any] = {"path": str(prediction.file), **ranked[0], **_doubts(prediction, card), "top": ranked}
        sys.stdout.write(f"{before}  {json.dumps(entry, ensure_ascii=False)}")
        before = ",\n"
    sys.stdout.write("[]\n" if before == "[\n" else "\n]\n")


def _write_csv(predictions: Iterable[Prediction], card: ModelCard, top: int) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    places = ["", *(f"_{place}" for place in range(2, top + 1))]
    headings = [f"{heading}{place}" for place in places for heading in ("class", "probability")]
    doubted = [name for name, field in _DOUBTS.items() if getattr(card, field) is not None]
    writer.writerow(["path", *headings, *doubted])
    for prediction in predictions:
        ranked = [cell for pair in _ranked(prediction, card.classes, top) for cell in pair]
        cells = [str(prediction.file), *ranked, *map(int, _doubts(prediction, card).values())]
        writer.writerow([artifacts.spreadsheet_cell(cell) if isinstance(cell, str) else cell for cell in cells])


WRITERS = {"table": _write_table, "json": _write_json, "csv": _write_csv}
