"""The rows of the plots' CSV files; the template of the same name in `templates/` draws each.

C classes. A rank is a class's place when classes are sorted from most to fewest training images. Every row carries
`place` and `champion`, so that a variant has one colour in all plots: place 0 is joint, drawn in black.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ltrec.data.shot_groups import GROUPS
from ltrec.evaluation.page_text import page_text

if TYPE_CHECKING:
    from ltrec.evaluation.metrics import Floats
    from ltrec.evaluation.report import Report

    Row = dict[str, object]

HEADERS = {
    "tau_curve": "variant,tau,val,chosen,reference,reference_val,place,champion",
    "weight_norms": "variant,rank,class,norm,relative,train,shot,smooth,window,place,champion",
}
"""What a table without rows holds: no variant has a τ curve, or none has class weights."""
_POINTS = 200  # of a risk–coverage curve
_FEW_CLASSES = 40  # up to so many classes a line is no running mean


def tables(report: Report) -> dict[str, list[Row]]:
    """Return the rows of each table by its name, all text as `page_text`; only those in `HEADERS` may have none."""
    rows = {
        "accuracy_by_rank": rank_rows(report),
        "tau_curve": tau_rows(report),
        "weight_norms": norm_rows(report),
        "groups": group_rows(report),
        "confusion": confusion_rows(report),
        "reliability": reliability_rows(report),
        "risk_coverage": risk_rows(report),
    }
    return {
        name: [
            {key: page_text(cell) if isinstance(cell, str) else cell for key, cell in row.items()} for row in of_table
        ]
        for name, of_table in rows.items()
    }


def running_window(classes: int) -> int:
    """Return how many neighbouring classes a line is averaged over: an odd twentieth of them, 1 for few classes."""
    return 1 if classes <= _FEW_CLASSES else classes // 20 // 2 * 2 + 1


def running_mean(values: Floats, window: int) -> Floats:
    """Return the centred mean over `window` values (odd), fewer at the ends, leaving out nan; (C,) → (C,)."""
    known = ~np.isnan(values)
    ones = np.ones(window)
    total = np.convolve(np.where(known, values, 0.0), ones)
    count = np.convolve(known.astype(np.float64), ones)
    mean = np.full(len(total), np.nan)
    np.divide(total, count, out=mean, where=count > 0.5)
    return mean[window // 2 : window // 2 + len(values)]


def rank_rows(report: Report) -> list[Row]:
    """Return a row for each variant and rank: its class's accuracy, and `smooth`, its mean over `window` ranks."""
    window = running_window(len(report.names))
    return [
        {
            "variant": variant, "rank": rank, "class": report.names[label], "train": int(report.counts[label]),
            "shot": str(report.groups[label]), "accuracy": cell(accuracy[label]), "smooth": cell(smooth[rank]),
            "window": window,
        } | _look(report, variant)
        for variant, accuracy in report.accuracy.items()
        for smooth in [running_mean(accuracy[report.order], window)]
        for rank, label in enumerate(report.order)
    ]  # fmt: skip


def tau_rows(report: Report) -> list[Row]:
    """Return a row for each variant and τ of its grid, beside joint's accuracy on val."""
    reference = report.reference
    joint = report.results[reference].fit["val"]["balanced"] if reference else ""
    return [
        {
            "variant": variant, "tau": float(row["tau"]), "val": float(row["val"]),
            "chosen": int(row["tau"] == chosen.get("tau")),
            "reference": reference or "", "reference_val": joint,
        } | _look(report, variant)
        for variant, result in report.results.items()
        for chosen in [result.fit.get("chosen", {})]
        for row in result.fit.get("curve", ())
        if {"tau", "val"} <= set(row)
    ]  # fmt: skip


def norm_rows(report: Report) -> list[Row]:
    """Return a row for each linear variant and rank: ‖w_j‖, and the same over its mean over the classes.

    A head's scale decides nothing, so `relative` is what is compared; `smooth` is its mean over `window` ranks.
    """
    window = running_window(len(report.names))
    return [
        {
            "variant": variant, "rank": rank, "class": report.names[label], "norm": float(result.norms[label]),
            "relative": float(relative[rank]), "train": int(report.counts[label]), "shot": str(report.groups[label]),
            "smooth": float(smooth[rank]), "window": window,
        } | _look(report, variant)
        for variant, result in report.results.items()
        if result.norms is not None
        for relative in [result.norms[report.order] / result.norms.mean()]
        for smooth in [running_mean(relative, window)]
        for rank, label in enumerate(report.order)
    ]  # fmt: skip


def group_rows(report: Report) -> list[Row]:
    """Return a row for each variant and shot group, and for all images: the figure and its interval."""
    return [
        {"variant": variant, "group": group, "accuracy": value, "low": interval[0], "high": interval[1]}
        | _look(report, variant)
        for variant, result in report.results.items()
        for group in (*GROUPS, "all")
        if (value := result.figures[group]) is not None
        for interval in [result.intervals[group] or (value, value)]
    ]


def confusion_rows(report: Report) -> list[Row]:
    """Return the confusions that happened, as shares of the true class's test images: the champion's, then joint's.

    A class without test images has one row, of itself and without a share, so that it has its place at the axes.
    """
    rows: list[Row] = []
    for variant in dict.fromkeys([report.champion, report.reference or report.champion]):
        matrix = report.confusion(variant)
        tested, entries = matrix.sum(axis=1), matrix.tocoo()
        untested = [(rank, rank, 0) for rank in np.flatnonzero(tested == 0)]
        rows += [
            {
                "actual": report.names[report.order[row]], "predicted": report.names[report.order[column]],
                "actual_rank": int(row), "predicted_rank": int(column), "images": int(images),
                "share": float(images / tested[row]) if images else "", "shot": str(report.groups[report.order[row]]),
                "variant": variant,
            } | _look(report, variant)
            for row, column, images in sorted([*zip(*entries.coords, entries.data, strict=True), *untested])
        ]  # fmt: skip
    return rows


def reliability_rows(report: Report) -> list[Row]:
    """Return a row for each variant and each bin of its largest probability that holds images."""
    return [
        {"variant": variant, **of._asdict()} | _look(report, variant)
        for variant, result in report.results.items()
        for of in result.calibration.reliability
    ]


def risk_rows(report: Report) -> list[Row]:
    """Return a row for each variant and coverage: the share of errors among the images accepted.

    Of a long curve the points nearest above evenly spaced coverages are kept, the last one among them.
    """
    wanted = np.arange(1, _POINTS + 1) / _POINTS
    return [
        {"variant": variant, "coverage": float(coverage), "risk": float(risk)} | _look(report, variant)
        for variant, result in report.results.items()
        for curve in [result.calibration.risk_coverage]
        for points in [np.unique(np.searchsorted(curve.coverage, wanted - 1e-9))]
        for coverage, risk in zip(curve.coverage[points], curve.risk[points], strict=True)
    ]


def cell(value: float) -> float | str:
    """Return an empty cell for what is not known."""
    return "" if np.isnan(value) else float(value)


def _look(report: Report, variant: str) -> Row:
    """Return what decides a variant's colour: its place among the variants, and whether it is the champion."""
    others = [name for name in report.results if name != report.reference]
    place = 0 if variant == report.reference else 1 + others.index(variant)
    return {"place": place, "champion": int(variant == report.champion)}
