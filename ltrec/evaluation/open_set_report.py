"""The open set's figures of all variants, as metrics and as a table in plain ASCII, for every terminal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ltrec.artifacts import UNKNOWN
from ltrec.evaluation.open_set import PUBLISHED_THRESHOLD, SCORES
from ltrec.evaluation.side_table import markdown_table, terminal_table

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rich.console import Console, ConsoleOptions, RenderResult

_AT_PUBLISHED = f"f_measure_at_{PUBLISHED_THRESHOLD:g}"
_COLUMNS = ("variant", "score", "AUROC", "FPR95", "F-measure", "threshold", f"F at {PUBLISHED_THRESHOLD:g}")


@dataclass(frozen=True)
class KnownAndUnknown:
    """How many known and unknown images a split has."""

    known: int
    unknown: int

    @classmethod
    def of(cls, labels: NDArray[np.int64]) -> KnownAndUnknown:
        """Return the counts of labels (N,)."""
        unknown = int((labels == UNKNOWN).sum())
        return cls(len(labels) - unknown, unknown)


@dataclass(frozen=True)
class OpenSetReport:
    """The open set's figures of all variants, in the order of `params.yaml`."""

    figures: dict[str, dict[str, Any]]
    """The figures of each variant, as `evaluate_open_set` gives them."""
    champion: str
    test: KnownAndUnknown
    val: KnownAndUnknown

    def metrics(self, variant: str) -> dict[str, float | None]:
        """Return a variant's figures by path, such as `openset/msp/auroc`."""
        flat: dict[str, float | None] = {f"openset/{_AT_PUBLISHED}": self.figures[variant][_AT_PUBLISHED]}
        for score in SCORES:
            flat |= {f"openset/{score}/{name}": value for name, value in self.figures[variant][score].items()}
        return flat

    def rows(self) -> list[list[str]]:
        """Return a row for each variant and score, a text for each column."""
        return [
            [
                variant,
                score,
                *(_percent(figures[score][name]) for name in ("auroc", "fpr95", "f_measure")),
                "-" if (threshold := figures[score]["threshold"]) is None else f"{threshold:.4g}",
                _percent(figures[_AT_PUBLISHED]) if score == "msp" else "-",
            ]
            for variant, figures in self.figures.items()
            for score in SCORES
        ]

    @property
    def note(self) -> str:
        """Return what the table's figures are."""
        chosen = (
            f"thresholds: the best F-measure on val ({self.val.known} known, {self.val.unknown} unknown)"
            if self.val.unknown
            else "no threshold is chosen: val has no unknown images"
        )
        return (
            f"Open set, per cent of {self.test.known} known and {self.test.unknown} unknown test images; FPR95: unknown"
            f" images accepted where 95 % of the known ones are; {chosen}."
        )

    def markdown(self) -> str:
        """Return the table as GitHub shows it."""
        return f"{markdown_table(_COLUMNS, self.rows(), names=2)}\n\n{self.note}\n"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the table, in at most 80 columns, and what its figures are."""
        from rich.text import Text

        yield terminal_table(_COLUMNS, self.rows(), bold=self.champion, names=2)
        yield Text(self.note, style="dim")


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
