"""All variants on the test split: figures for JSON and tracking, rows per class, and the final table.

C classes, N test images. A rank is a class's place when classes are sorted from most to fewest training images.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from ltrec.data.shot_groups import GROUPS
from ltrec.errors import some
from ltrec.evaluation import metrics
from ltrec.evaluation.calibration_report import CalibrationReport
from ltrec.evaluation.plot_rows import cell

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from collections.abc import Set as AbstractSet

    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.table import Table
    from scipy.sparse import csr_array

    from ltrec.evaluation.calibration import Calibration
    from ltrec.evaluation.choice import Choice
    from ltrec.evaluation.metrics import Floats, Integers, Names
    from ltrec.evaluation.open_set_report import OpenSetReport
    from ltrec.evaluation.plot_rows import Row
    from ltrec.evaluation.predictions import Predictions
    from ltrec.evaluation.statistics import Comparison, Intervals

SelectedOn = Literal["val", "test"]
"""The split whose images chose epoch, hyper-parameters and champion."""
_Layout = Literal["intervals beside", "intervals below", "short"]

_WITH_INTERVAL = (*GROUPS, "all")
_OPTIONAL = ("balanced", "macro F1")
_TITLES = (*_WITH_INTERVAL, *_OPTIONAL, "p")
_CROWN = "★"
NOT_TESTED = "not tested"
_FOR_ASCII = str.maketrans({"–": "-", "★": "*", "…": "."})


def selected_on(val: AbstractSet[str], test: AbstractSet[str]) -> SelectedOn:
    """Return which split chose epoch, hyper-parameters and champion, by its paths: test, where val shares any."""
    return "val" if val.isdisjoint(test) else "test"


@dataclass(frozen=True)
class Result:
    """One variant on the test split."""

    predictions: Predictions
    figures: dict[str, float | None]
    intervals: Intervals
    comparison: Comparison | None
    """The variant against joint; None for joint itself, and where no variant is joint."""
    fit: dict[str, Any]
    """The variant's own metrics.json: figures on val, what was chosen, the curve it was chosen from."""
    norms: Floats | None
    """‖w_j‖ of each class, (C,), if the head is linear."""
    calibration: Calibration

    def metrics(self) -> dict[str, float | None]:
        """Return all figures on test by name."""
        return self.figures | self.calibration.figures

    def as_json(self) -> dict[str, Any]:
        """Return what `metrics.json` says of the variant."""
        joint = self.comparison
        return self.metrics() | {
            "interval": self.intervals,
            "p_value_against_joint": joint and joint.p_value,
            "p_value_holm": joint and joint.p_holm,
            "discordant": joint and {"better": joint.better, "worse": joint.worse},
        }


@dataclass(frozen=True)
class Report:
    """All variants on the test split, in the order of `params.yaml`."""

    names: tuple[str, ...]
    """Class names, C."""
    counts: Integers
    """Training images of each class, (C,)."""
    groups: Names
    """Shot group of each class, (C,)."""
    labels: Integers
    """True class of each test image, (N,)."""
    results: dict[str, Result]
    choice: Choice
    """The champion, and how sure it is."""
    reference: str | None
    """The variant that is joint."""
    openset: OpenSetReport | None = None
    """How well unknown images are rejected; None where test has none."""
    selected_on: SelectedOn = "val"
    test_set: str | None = None
    """The digest of the test images and their labels: figures on another one are not comparable."""

    @property
    def champion(self) -> str:
        return self.choice.champion

    @cached_property
    def order(self) -> Integers:
        """Return the class at each rank, (C,); equals stay in the order of their labels."""
        return np.argsort(-self.counts, kind="stable")

    @cached_property
    def accuracy(self) -> dict[str, Floats]:
        """Return each variant's accuracy by class, (C,); nan for a class without test images."""
        return {
            name: metrics.per_class_accuracy(self.labels, result.predictions.predicted, len(self.names))
            for name, result in self.results.items()
        }

    def confusion(self, variant: str) -> csr_array:
        """Return how often each class, by rank, was taken for each, (C, C)."""
        rank = np.argsort(self.order)
        predicted = self.results[variant].predictions.predicted
        return metrics.confusion(rank[self.labels], rank[predicted], len(self.names))

    def as_json(self) -> dict[str, Any]:
        """Return the content of `metrics.json`."""
        content = {name: result.as_json() for name, result in self.results.items()}
        for name, figures in self.openset.figures.items() if self.openset else ():
            content[name]["openset"] = figures
        for name, chance in self.choice.best_on_val.items():
            content[name]["best_on_val"] = chance
        return content | {
            "champion": self.champion, "champion_doubt": self.choice.doubt, "selected_on": self.selected_on,
            "test_set": self.test_set,
        }  # fmt: skip

    def metrics(self, variant: str) -> dict[str, float | None]:
        """Return a variant's figures by name, for comparing runs."""
        figures = self.results[variant].metrics() | {"best_on_val": self.choice.best_on_val.get(variant)}
        return figures | (self.openset.metrics(variant) if self.openset else {})

    @property
    def beside(self) -> list[CalibrationReport | OpenSetReport]:
        """Return the tables that stand below the main one."""
        calibrations = {name: result.calibration for name, result in self.results.items()}
        return [CalibrationReport(calibrations, self.champion), *([self.openset] if self.openset else [])]

    def per_class_rows(self, variants: Sequence[str] | None = None) -> list[Row]:
        """Return a row for each class in the order of the labels, a column for each variant's accuracy.

        A class without test images has none, and says so.
        """
        tested = np.bincount(self.labels, minlength=len(self.names))
        return [
            {
                "label": label, "class": name, "train": int(self.counts[label]), "test": int(tested[label]),
                "shot": str(self.groups[label]),
            } | {
                variant: cell(self.accuracy[variant][label]) if tested[label] else NOT_TESTED
                for variant in variants or self.results
            }
            for label, name in enumerate(self.names)
        ]  # fmt: skip

    def markdown(self) -> str:
        """Return the final table as GitHub shows it."""
        rows = [
            [name, *(f"{figure} ({interval})" if interval else figure for figure, interval in cells.values())]
            for name, cells in self._cells()
        ]
        lines = [["variant", *_TITLES], ["---", *["---:"] * len(_TITLES)], *rows]
        table = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
        return f"{table}\n\n{self.note}\n" + "".join(f"\n{other.markdown()}" for other in self.beside)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the final table, in the first layout that fits, and what its figures are."""
        from rich.text import Text

        unbounded = options.update_width(10_000)
        for layout in get_args(_Layout):
            table = self._table(layout, options)
            if console.measure(table, options=unbounded).maximum <= options.max_width:
                break
        yield table
        yield Text(_encodable(self.note, options), style="dim")
        for other in self.beside:
            yield ""
            yield other

    def _table(self, layout: _Layout, options: ConsoleOptions) -> Table:
        from rich import box
        from rich.table import Table
        from rich.text import Text

        beside = layout == "intervals beside"
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 2 if beside else 1, 0, 0), pad_edge=False, show_edge=False)
        table.add_column("variant", overflow="fold")
        titles = [title for title in _TITLES if layout != "short" or title not in _OPTIONAL]
        for title in titles:
            left = beside and title in _WITH_INTERVAL
            table.add_column(f"{title:>6}" if left else title, justify="left" if left else "right", no_wrap=True)
        for variant, cells in self._cells():
            texts = [Text(_encodable(variant, options))]
            for figure, interval in (cells[title] for title in titles):
                text = Text(_encodable(f"{figure:>6}" if beside and interval else figure, options))
                if interval and layout != "short":
                    low, high = interval.split("–")
                    text.append(_encodable(f" {low:>5}–{high}" if beside else f"\n{interval}", options), "not bold dim")
                texts.append(text)
            table.add_row(*texts, style="bold" if variant.endswith(_CROWN) else "")
        return table

    @property
    def note(self) -> str:
        """Return what the table's figures are."""
        tested = np.unique(self.labels)
        sizes = ", ".join(f"{group} {np.count_nonzero(self.groups[tested] == group)}" for group in GROUPS)
        intervals = any(any(result.intervals.values()) for result in self.results.values())
        compared = self.reference is not None and len(self.results) > 1
        untested = [f"'{self.names[label]}'" for label in np.setdiff1d(np.arange(len(self.names)), tested).tolist()]
        parts = [
            f"Per cent of {len(self.labels)} test images in {len(tested)} classes ({sizes})",
            f"{NOT_TESTED}: {len(untested)} of {len(self.names)} classes, {some(untested)}" if untested else "",
            "95 % intervals by bootstrap" if intervals else "",
            f"p against {self.reference}: exact McNemar, Holm-adjusted" if compared else "",
            f"{_CROWN} champion {self.choice}",
            "val holds test images: all was selected on test" if self.selected_on == "test" else "",
        ]
        return "; ".join(part for part in parts if part) + "."

    def _cells(self) -> Iterator[tuple[str, dict[str, tuple[str, str]]]]:
        """Yield each variant's row of the final table: by title a figure and its interval, which may be empty."""
        for name, result in self.results.items():
            figures, intervals = result.figures, result.intervals
            yield (
                f"{name} {_CROWN}" if name == self.champion else name,
                {
                    **{key: (_percent(figures[key]), _interval(intervals[key])) for key in _WITH_INTERVAL},
                    "balanced": (_percent(figures["balanced"]), ""),
                    "macro F1": (_percent(figures["macro_f1"]), ""),
                    "p": (_p_value(result.comparison), ""),
                },
            )


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _interval(interval: Sequence[float] | None) -> str:
    return "–".join(f"{100 * end:.1f}".replace("100.0", "100") for end in interval) if interval else ""


def _p_value(comparison: Comparison | None) -> str:
    if comparison is None:
        return "–"
    return f"{comparison.p_holm:.3f}" if comparison.p_holm >= 0.001 else "<0.001"


def _encodable(text: str, options: ConsoleOptions) -> str:
    return text.translate(_FOR_ASCII) if options.ascii_only else text
