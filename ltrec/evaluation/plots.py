"""The plots that the field draws. Plain arrays in, image files out; the same bytes for the same arrays.

C classes. A rank is a class's place when classes are sorted from most to fewest training images.
"""

from __future__ import annotations

import contextlib
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field

from ltrec import artifacts
from ltrec.evaluation.drawing import (
    FEW_POINTS,
    INK,
    SHADE,
    STYLE,
    add_legend,
    averaged,
    draw_counts,
    label_matrix,
    mark_groups,
    mean_of_blocks,
    name_ranks,
    running_mean,
    running_window,
)
from ltrec.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray
    from scipy.sparse import csr_array

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]
    Names = NDArray[np.str_]

# Okabe & Ito 2008 without black and yellow; Paul Tol's bright and muted schemes (2021). All hold for colour-blind eyes.
PALETTES = {
    "colorblind": ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"),
    "bright": ("#4477AA", "#EE6677", "#228833", "#CCBB44", "#66CCEE", "#AA3377"),
    "muted": ("#332288", "#CC6677", "#117733", "#DDCC77", "#88CCEE", "#882255", "#44AA99", "#AA4499"),
}
_DASHES = ("-", "-.", ":")
_MARKERS = "osD^vPX"
_FEW_BARS = 28  # up to so many bars carry their value
_BLOCKS = 100  # rows and columns of a confusion matrix at most


class PlotSettings(Settings):
    """How plots look; changing it draws them anew and trains nothing."""

    palette: Literal["colorblind", "bright", "muted"] = "colorblind"
    format: Literal["png", "svg"] = "png"
    dpi: Annotated[int, Field(ge=50, le=600)] = 150
    """Dots an inch of PNG images; a plot is about 8 inches wide."""

    def build(self, variants: Sequence[str], *, reference: str | None, champion: str) -> Artist:
        return Artist(PALETTES[self.palette], self.format, self.dpi, tuple(variants), reference, champion)


@dataclass(frozen=True)
class Artist:
    """Draws the plots of one comparison; a variant looks alike in all of them.

    Attributes:
        colors: For all variants but the reference, which is black.
        format: File ending.
        dpi: Dots an inch.
        variants: Names in the order of the legend.
        reference: The jointly trained classifier, if it is among them.
        champion: Drawn with the thickest line.
    """

    colors: tuple[str, ...]
    format: str
    dpi: int
    variants: tuple[str, ...]
    reference: str | None
    champion: str

    def accuracy_by_rank(
        self, folder: Path, accuracy: Mapping[str, Floats], counts: Integers, groups: Names, names: Sequence[str]
    ) -> None:
        """Accuracy against class rank, over the classes' training images.

        Args:
            folder: Where the file goes.
            accuracy: For each variant, by rank, (C,); nan where there are no test images.
            counts: Training images by rank, (C,), falling.
            groups: Shot groups by rank, (C,).
            names: Class names by rank.
        """
        window = running_window(len(counts))
        with self._figure(folder / "accuracy_by_rank", (8.4, 4.8)) as figure:
            axes = figure.add_subplot()
            draw_counts(axes, counts)
            for variant, values in accuracy.items():
                self._line(axes, variant, np.arange(len(counts)), 100 * running_mean(values, window))
            axes.set(ylim=(-2, 109), yticks=range(0, 101, 20), ylabel="test accuracy, %")
            axes.set_title("Accuracy by class" + averaged(window), pad=24)
            mark_groups(axes, groups)
            name_ranks(axes, names)
            add_legend(figure, axes)

    def tau_curve(
        self, folder: Path, curves: Mapping[str, Floats], chosen: Mapping[str, float], reference: float | None
    ) -> None:
        """Balanced accuracy on val against τ.

        Args:
            folder: Where the file goes.
            curves: For each variant rows of τ and accuracy, (T, 2).
            chosen: The τ that each of them took.
            reference: Accuracy on val of the jointly trained classifier.
        """
        with self._figure(folder / "tau_curve", (6.4, 4.2)) as figure:
            axes = figure.add_subplot()
            for variant, curve in curves.items():
                tau, accuracy = curve[np.argsort(curve[:, 0])].T
                self._line(axes, variant, tau, 100 * accuracy, plain=True)
                at = chosen.get(variant)
                if at is not None:
                    height = 100 * float(np.interp(at, tau, accuracy))
                    axes.plot(at, height, "o", color=self._look(variant)[0], markersize=9, zorder=5)
                    axes.annotate(
                        f"τ = {at:.3g}: {height:.1f} %", (at, height), (0, 9), textcoords="offset points",
                        ha="center", va="bottom", color=self._look(variant)[0], weight="bold",
                    )  # fmt: skip
            if reference is not None and self.reference is not None:
                axes.axhline(100 * reference, color=INK, linestyle="--", linewidth=1.2, label=self.reference)
            axes.set(xlabel="τ", ylabel="balanced accuracy on val, %", title="Choice of τ on the validation split")
            axes.margins(y=0.15)
            axes.grid(axis="y", color=SHADE)
            add_legend(figure, axes)

    def weight_norms(
        self, folder: Path, norms: Mapping[str, Floats], groups: Names, counts: Integers, names: Sequence[str]
    ) -> None:
        """‖w_j‖ against class rank, each head's divided by its mean: its scale decides nothing.

        Args:
            folder: Where the file goes.
            norms: For each linear head, by rank, (C,).
            groups: Shot groups by rank, (C,).
            counts: Training images by rank, (C,).
            names: Class names by rank.
        """
        window = running_window(len(counts))
        with self._figure(folder / "weight_norms", (8.4, 4.4)) as figure:
            axes = figure.add_subplot()
            draw_counts(axes, counts)
            for variant, values in norms.items():
                self._line(axes, variant, np.arange(len(values)), running_mean(values / values.mean(), window))
            top = max(float(np.max(line.get_ydata())) for line in axes.lines)
            axes.set(ylim=(0, 1.15 * max(top, 1.0)), ylabel="‖w‖ / mean ‖w‖")
            axes.set_title("Weight norms by class" + averaged(window), pad=24)
            mark_groups(axes, groups)
            name_ranks(axes, names)
            add_legend(figure, axes)

    def confusion(self, folder: Path, matrices: Mapping[str, csr_array], groups: Names, names: Sequence[str]) -> None:
        """Row-normalised confusion matrices side by side, classes by rank.

        Args:
            folder: Where the file goes.
            matrices: For each variant counts of (true, predicted), (C, C).
            groups: Shot groups by rank, (C,).
            names: Class names by rank.
        """
        from matplotlib.colors import PowerNorm

        size = -(-len(names) // _BLOCKS)
        with self._figure(folder / "confusion", (1.2 + 4.4 * len(matrices), 4.9)) as figure:
            panels = figure.subplots(1, len(matrices), squeeze=False)[0]
            for axes, (variant, matrix) in zip(panels, matrices.items(), strict=True):
                share = 100 * mean_of_blocks(matrix, size)
                # The square root lets rare confusions show beside the diagonal.
                image = axes.imshow(share, cmap="Blues", norm=PowerNorm(0.5, 0, 100), interpolation="nearest")
                axes.set_title(f"{variant}{' (champion)' if variant == self.champion else ''}")
                label_matrix(axes, share, groups[::size], names if size == 1 else ())
                axes.set(xlabel="predicted class" if size == 1 else f"predicted, blocks of {size} classes by rank")
            panels[0].set_ylabel("true class" if size == 1 else f"true, blocks of {size} classes by rank")
            bar = figure.colorbar(image, ax=panels, shrink=0.8, ticks=[0, 5, 20, 50, 100])
            bar.set_label("% of the true class's test images")
            bar.outline.set_visible(False)

    def group_bars(
        self,
        folder: Path,
        figures: Mapping[str, Mapping[str, float | None]],
        intervals: Mapping[str, Mapping[str, Sequence[float] | None]],
        shown: Sequence[str],
    ) -> None:
        """Bars with 95 % intervals for each shot group; a group without classes is left out.

        Args:
            folder: Where the file goes.
            figures: For each variant its figures by name.
            intervals: Their intervals by name.
            shown: Which figures, in order.
        """
        shown = [name for name in shown if any(of[name] is not None for of in figures.values())]
        width = 0.8 / len(figures)
        sure = all(own[name] is not None for own in intervals.values() for name in shown)
        numbered = len(figures) * len(shown) <= _FEW_BARS
        with self._figure(folder / "groups", (8.4, 4.4)) as figure:
            axes = figure.add_subplot()
            for place, (variant, own) in enumerate(figures.items()):
                heights = np.array([100 * (own[name] or 0.0) for name in shown])
                x = np.arange(len(shown)) + (place - (len(figures) - 1) / 2) * width
                color, round_ = self._look(variant)
                axes.bar(
                    x, heights, 0.9 * width, color=color, edgecolor="white", linewidth=0,
                    hatch="///" if round_ else None, label=self._label(variant),
                )  # fmt: skip
                tops = heights.copy()
                if sure:
                    low, tops = 100 * np.array([intervals[variant][name] for name in shown], dtype=np.float64).T
                    axes.vlines(x, low, tops, color="white", linewidth=3)
                    axes.vlines(x, low, tops, color=INK, linewidth=1.1)
                for at, height, top in zip(x, heights, tops, strict=True) if numbered else ():
                    axes.text(at, top + 1, f"{height:.0f}", ha="center", va="bottom", fontsize=8)
            axes.set(ylim=(0, 108), yticks=range(0, 101, 20), ylabel="test accuracy, %")
            axes.set_title("Accuracy by shot group" + (", 95 % intervals" if sure else ""))
            axes.set_xticks(range(len(shown)), shown)
            axes.tick_params(axis="x", length=0)
            axes.set_axisbelow(True)
            axes.grid(axis="y", color=SHADE)
            add_legend(figure, axes)

    @contextlib.contextmanager
    def _figure(self, stem: Path, size: tuple[float, float]) -> Iterator[Figure]:
        import matplotlib as mpl
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine

        path = stem.with_suffix(f".{self.format}")
        # Neither date nor version goes into the file, so that the same figure has the same bytes.
        metadata = {"Software": None} if self.format == "png" else {"Date": None, "Creator": None}
        with mpl.rc_context(STYLE), warnings.catch_warnings():
            # Letters that the font lacks become boxes; the tables have the names.
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08))
            yield figure
            with artifacts.replacing(path) as temporary:
                figure.savefig(temporary, format=self.format, dpi=self.dpi, metadata=metadata)

    def _line(self, axes: Axes, variant: str, x: Floats | Integers, y: Floats, *, plain: bool = False) -> None:
        place, (color, round_) = self.variants.index(variant), self._look(variant)
        marked = not plain and len(x) <= FEW_POINTS
        axes.plot(
            x, y, color=color, label=self._label(variant),
            linestyle="--" if variant == self.reference else _DASHES[round_ % len(_DASHES)],
            linewidth=2.6 if variant == self.champion else 1.6,
            marker=_MARKERS[place % len(_MARKERS)] if marked else None, markersize=4.5,
            zorder=4 if variant == self.champion else 3,
        )  # fmt: skip

    def _look(self, variant: str) -> tuple[str, int]:
        """Its colour, and how often the palette was used up before it."""
        if variant == self.reference:
            return INK, 0
        place = [name for name in self.variants if name != self.reference].index(variant)
        return self.colors[place % len(self.colors)], place // len(self.colors)

    def _label(self, variant: str) -> str:
        return f"{variant} (champion)" if variant == self.champion else variant
