"""What the plots share: their look, axes that run over class ranks, and how many classes become few points."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray
    from scipy.sparse import csr_array

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]
    Names = NDArray[np.str_]

INK, FAINT, SHADE = "#222222", "#8a8a8a", "#e6e6ea"
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so the same letters everywhere
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 12,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "svg.hashsalt": "ltrec",
    "text.parse_math": False,  # a class may be called $x_$
}
FEW_POINTS = 40  # up to so many classes every point is marked, and no mean runs over neighbours
_NAMED_CLASSES = 20  # up to so many classes are named at the axes
# Of the classes: a narrower group's name would lie over its neighbour's.
_NAMED_SHARE = 0.04
_NAME_LENGTH = 14


def running_window(classes: int) -> int:
    """How many neighbouring classes a line is averaged over: an odd twentieth of them, 1 for few classes."""
    return 1 if classes <= FEW_POINTS else classes // 20 // 2 * 2 + 1


def running_mean(values: Floats, window: int) -> Floats:
    """Centred mean over `window` values (odd), fewer at the ends, without those that are nan; (C,) → (C,)."""
    known = ~np.isnan(values)
    ones = np.ones(window)
    total = np.convolve(np.where(known, values, 0.0), ones)
    count = np.convolve(known.astype(np.float64), ones)
    mean = np.full(len(total), np.nan)
    np.divide(total, count, out=mean, where=count > 0.5)
    return mean[window // 2 : window // 2 + len(values)]


def averaged(window: int) -> str:
    """What a plot's title adds where its lines are running means."""
    return f", running mean over {window} classes" if window > 1 else ""


def mean_of_blocks(matrix: csr_array, size: int) -> Floats:
    """Row-normalised counts, summed over blocks of columns and averaged over blocks of rows; nan where no row counts.

    (C, C) → (⌈C/size⌉, ⌈C/size⌉).
    """
    count = -(-matrix.shape[0] // size)
    tested, entries = matrix.sum(axis=1), matrix.tocoo()
    row, column = entries.coords
    places, shares = row // size * count + column // size, entries.data / tested[row]
    sums = np.bincount(places, shares, minlength=count**2).reshape(count, count)
    rows = np.bincount(np.flatnonzero(tested) // size, minlength=count)[:, None]
    return np.divide(sums, rows, out=np.full_like(sums, np.nan), where=rows > 0)


def draw_counts(axes: Axes, counts: Integers) -> None:
    """The classes' training images behind a plot, on a logarithmic axis at the right."""
    behind = axes.twinx()
    ranks = np.arange(len(counts))
    behind.bar(ranks, np.maximum(counts, 0.5), width=1.0 if len(counts) > FEW_POINTS else 0.86, color=SHADE)
    # Up to a power of ten above the largest class: the bars stay below the lines' upper half.
    behind.set(yscale="log", ylim=(0.8, 10 * max(int(counts.max()), 1)), ylabel="training images")
    behind.yaxis.set_major_formatter("{x:,.0f}")  # a logarithmic axis would write its powers as math
    behind.yaxis.set_minor_formatter("")
    behind.yaxis.label.set_color(FAINT)
    behind.tick_params(axis="y", which="both", labelcolor=FAINT)
    behind.spines["right"].set_visible(True)
    axes.set_zorder(behind.get_zorder() + 1)
    axes.patch.set_visible(False)
    axes.set_xlim(-0.5, len(counts) - 0.5)


def mark_groups(axes: Axes, groups: Names) -> None:
    """Name the shot groups at the top of a plot over class ranks, those wide enough for it, and part them."""
    for start, stop in _runs(groups):
        if start > 0:
            axes.axvline(start - 0.5, color=FAINT, linewidth=0.9, linestyle=(0, (2, 3)), zorder=1)
        if stop - start >= _NAMED_SHARE * len(groups):
            axes.text(
                (start + stop - 1) / 2, 1.0, str(groups[start]), transform=axes.get_xaxis_transform(),
                ha="center", va="bottom", color=FAINT,
            )  # fmt: skip


def name_ranks(axes: Axes, names: Sequence[str]) -> None:
    """Label the horizontal axis: class names if they are few, else ranks."""
    if len(names) <= _NAMED_CLASSES:
        tilt = 40 if max(map(len, names)) > 4 else 0
        axes.set_xticks(range(len(names)), [_shortened(name) for name in names], rotation=tilt)
        for label in axes.get_xticklabels() if tilt else ():
            label.set(ha="right", rotation_mode="anchor")
    axes.set_xlabel("class, from most to fewest training images")


def label_matrix(axes: Axes, share: Floats, groups: Names, names: Sequence[str]) -> None:
    """Write values and names at a matrix of percentages if it is small; part the shot groups."""
    size = len(share)
    for start, _ in _runs(groups):
        if start > 0:
            axes.axhline(start - 0.5, color=FAINT, linewidth=0.8)
            axes.axvline(start - 0.5, color=FAINT, linewidth=0.8)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    if not names or size > _NAMED_CLASSES:
        axes.set(xticks=[], yticks=[])
        return
    short = [_shortened(name) for name in names]
    axes.set_yticks(range(size), short)
    axes.set_xticks(range(size), short, rotation=90 if max(map(len, short)) > 2 else 0)
    small = 8 if size <= _NAMED_CLASSES // 2 else 5.5
    for row, column in np.argwhere(np.nan_to_num(share) >= 0.5):
        value = share[row, column]
        ink = "white" if value > 35 else INK
        axes.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=small, color=ink)


def add_legend(figure: Figure, axes: Axes) -> None:
    """One legend below everything, in as many columns as fit."""
    handles, labels = axes.get_legend_handles_labels()
    columns = max(1, min(len(labels), int(figure.get_figwidth() * 13 / (max(map(len, labels)) + 4))))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns)


def _runs(groups: Names) -> list[tuple[int, int]]:
    """(start, stop) of each run of equal groups."""
    edges = [0, *(np.flatnonzero(groups[1:] != groups[:-1]) + 1).tolist(), len(groups)]
    return list(itertools.pairwise(edges))


def _shortened(name: str) -> str:
    return name if len(name) <= _NAME_LENGTH else name[: _NAME_LENGTH - 1] + "…"
