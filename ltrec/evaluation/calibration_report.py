"""The calibration of all variants as a table in plain ASCII, for every terminal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ltrec.evaluation.calibration import BINS
from ltrec.evaluation.side_table import markdown_table, terminal_table

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

    from ltrec.evaluation.calibration import Calibration

_COLUMNS = ("variant", "NLL", "ECE", "class-wise ECE", "AURC")


@dataclass(frozen=True)
class CalibrationReport:
    """The calibration of all variants, in the order of `params.yaml`."""

    variants: dict[str, Calibration]
    champion: str

    def rows(self) -> list[list[str]]:
        """Return a row for each variant, a text for each column."""
        return [
            [name, f"{figures['nll']:.3f}", *(f"{100 * figures[key]:.3g}" for key in ("ece", "classwise_ece", "aurc"))]
            for name, of_variant in self.variants.items()
            for figures in [of_variant.figures]
        ]

    @property
    def note(self) -> str:
        """Return what the table's figures are."""
        return (
            "Calibration on test, temperatures fitted on val, every class counting the same. NLL: mean negative"
            f" log-likelihood in nats; per cent: ECE (expected calibration error, {BINS} bins), class-wise ECE, and"
            " AURC (mean share of errors among the images at least as sure as each)."
        )

    def markdown(self) -> str:
        """Return the table as GitHub shows it."""
        return f"{markdown_table(_COLUMNS, self.rows())}\n\n{self.note}\n"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the table, in at most 80 columns, and what its figures are."""
        from rich.text import Text

        yield terminal_table(_COLUMNS, self.rows(), bold=self.champion)
        yield Text(self.note, style="dim")
