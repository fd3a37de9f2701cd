"""One table of all variants over seeds: for people, for programs, and for the tracking."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ltrec.data.shot_groups import GROUPS
from ltrec.evaluation.metrics import FIGURES
from ltrec.evaluation.statistics import Estimate, PairedEstimate, holm, paired_t, t_interval

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.table import Table

    Values = list[float | None]

CHAMPION = "champion"
"""The row of the variant that each seed chose on val; no variant may be called so."""
_SHOWN = (*GROUPS, "all", "balanced")
_TESTED = "balanced"
_FOR_ASCII = str.maketrans({"±": "+", "–": "-", "−": "-", "★": "*"})


class SeedTable:
    """What `evaluate` found with each seed, as means with intervals and as differences to joint.

    Args:
        seeds: Two or more.
        evaluations: The content of each seed's `artifacts/evaluate/metrics.json`.
        variants: Their names, in the order of the rows.
        reference: The variant that is joint; None: no differences.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        evaluations: Sequence[Mapping[str, Any]],
        variants: Sequence[str],
        reference: str | None,
    ) -> None:
        self.seeds = list(seeds)
        self.champions = [str(of["champion"]) for of in evaluations]
        self.selected_on = "test" if any(of["selected_on"] == "test" for of in evaluations) else "val"
        self.reference = reference
        self._values: dict[str, dict[str, Values]] = {
            name: {figure: [of[name][figure] for of in evaluations] for figure in FIGURES} for name in variants
        }
        chosen = list(zip(evaluations, self.champions, strict=True))
        self._values[CHAMPION] = {figure: [of[name][figure] for of, name in chosen] for figure in FIGURES}

    @cached_property
    def means(self) -> dict[str, dict[str, Estimate | None]]:
        """Each row's figures; None where fewer than two seeds have one, as of a group without classes."""
        return {
            name: {figure: _mean([value for value in values if value is not None]) for figure, values in of.items()}
            for name, of in self._values.items()
        }

    @cached_property
    def differences(self) -> dict[str, dict[str, PairedEstimate | None]]:
        """Each other row against the reference, seed by seed; none without a reference."""
        if self.reference is None:
            return {}
        joint = self._values[self.reference]
        return {
            name: {figure: _difference(values, joint[figure]) for figure, values in of.items()}
            for name, of in self._values.items()
            if name != self.reference
        }

    @cached_property
    def adjusted(self) -> dict[str, dict[str, float | None]]:
        """The differences' p values, adjusted over the rows of each figure."""
        result: dict[str, dict[str, float | None]] = {name: dict.fromkeys(FIGURES) for name in self.differences}
        for figure in FIGURES:
            found = [(name, of[figure]) for name, of in self.differences.items()]
            tested = [(name, of.p_value) for name, of in found if of is not None and of.p_value is not None]
            for (name, _), p_holm in zip(tested, holm([p_value for _, p_value in tested]), strict=True):
                result[name][figure] = p_holm
        return result

    def as_json(self) -> dict[str, Any]:
        """Return the content of `table.json`: for each row and figure its mean, interval, values and difference."""
        rows: dict[str, Any] = {}
        for name, of in self._values.items():
            rows[name] = {
                figure: (asdict(mean) if (mean := self.means[name][figure]) else {}) | {"values": values}
                for figure, values in of.items()
            }
            for figure, difference in self.differences.get(name, {}).items():
                if difference is not None:
                    against = asdict(difference) | {"p_value_holm": self.adjusted[name][figure]}
                    rows[name][figure][f"against_{self.reference}"] = against
        return {
            "seeds": self.seeds, "champions": self.champions, "selected_on": self.selected_on, "figures": rows,
        }  # fmt: skip

    def metrics(self) -> dict[str, float]:
        """Return figures by name for the tracking: `crt/all`, `crt/all_half_width`, `crt/all_minus_joint` and so on."""
        found: dict[str, float] = {}
        for name, of in self.means.items():
            for figure, mean in of.items():
                if mean is not None:
                    found |= {f"{name}/{figure}": mean.mean, f"{name}/{figure}_half_width": mean.half_width}
        for name, against in self.differences.items():
            for figure, difference in against.items():
                if difference is not None:
                    key = f"{name}/{figure}_minus_{self.reference}"
                    found |= {key: difference.mean, f"{key}_half_width": difference.half_width}
                    if (p_holm := self.adjusted[name][figure]) is not None:
                        found[f"{key}_p_holm"] = p_holm
        return found

    @property
    def note(self) -> str:
        """Return what the figures are."""
        chosen = ", ".join(f"{name} {times}" for name, times in Counter(self.champions).most_common())
        over = f"{len(self.seeds)} seeds ({_listed(self.seeds)})"
        parts = [
            f"Per cent of the test images; mean ± half of the 95 % t-interval over {over}",
            f"− {self.reference}: difference within each seed; p of {_TESTED}: paired t, Holm-adjusted over the rows"
            if self.differences
            else "",
            f"★ champion: what each seed chose on val ({chosen})",
            "val holds test images: all was selected on test" if self.selected_on == "test" else "",
        ]
        return "; ".join(part for part in parts if part) + "."

    def markdown(self) -> str:
        """Return both tables as GitHub shows them, and what the figures are."""
        return (
            "\n".join(
                f"| {' | '.join(titles)} |\n| --- |{' ---: |' * (len(titles) - 1)}\n"
                + "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |\n" for row in rows)
                for titles, rows in self._tables()
            )
            + f"\n{self.note}\n"
        )

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield both tables, with the intervals below the figures where there is no room beside them."""
        from rich.text import Text

        unbounded = options.update_width(10_000)
        for beside in (True, False):
            tables = [_rendered(titles, rows, options, beside=beside) for titles, rows in self._tables()]
            if all(console.measure(table, options=unbounded).maximum <= options.max_width for table in tables):
                break
        for table in tables:
            yield table
            yield ""
        yield Text(_encodable(self.note, options), style="dim")

    def _tables(self) -> list[tuple[list[str], list[list[str]]]]:
        """Return titles and rows of the figures, and of the differences if there are any."""
        figures = [
            [_label(name), *(_cell(of[figure], "{:.1f}") for figure in _SHOWN)] for name, of in self.means.items()
        ]
        tables = [(["variant", *_SHOWN], figures)]
        if self.differences:
            differences = [
                [_label(name), *(_cell(of[figure], "{:+.1f}") for figure in _SHOWN), _p(self.adjusted[name][_TESTED])]
                for name, of in self.differences.items()
            ]
            tables.append(([f"− {self.reference}", *_SHOWN, "p"], differences))
        return tables


def _mean(values: list[float]) -> Estimate | None:
    return t_interval(values) if len(values) > 1 else None


def _difference(values: Values, reference: Values) -> PairedEstimate | None:
    pairs = [
        (one, other) for one, other in zip(values, reference, strict=True) if one is not None and other is not None
    ]
    return paired_t(*zip(*pairs, strict=True)) if len(pairs) > 1 else None


def _rendered(titles: list[str], rows: list[list[str]], options: ConsoleOptions, *, beside: bool) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for number, title in enumerate(titles):
        text = _encodable(title, options)
        if number:
            table.add_column(text, justify="right", no_wrap=True)
        else:
            table.add_column(text, overflow="fold")
    for row in rows:
        cells = [cell if beside else cell.replace(" ±", "\n±") for cell in row]
        style = "bold" if row[0] == _label(CHAMPION) else ""
        table.add_row(*(Text(_encodable(cell, options)) for cell in cells), style=style)
    return table


def _label(name: str) -> str:
    return f"★ {CHAMPION}" if name == CHAMPION else name


def _cell(estimate: Estimate | None, shape: str) -> str:
    if estimate is None:
        return "–"
    figure = shape.format(100 * estimate.mean).replace("-", "−")
    return f"{figure} ±{100 * estimate.half_width:.1f}"


def _p(p_holm: float | None) -> str:
    if p_holm is None:
        return "–"
    return f"{p_holm:.3f}" if p_holm >= 0.001 else "<0.001"


def _listed(seeds: list[int]) -> str:
    run = seeds == list(range(seeds[0], seeds[0] + len(seeds)))
    return f"{seeds[0]}–{seeds[-1]}" if run and len(seeds) > 2 else ", ".join(map(str, seeds))


def _encodable(text: str, options: ConsoleOptions) -> str:
    return text.translate(_FOR_ASCII) if options.ascii_only else text
