"""Accuracy where the classes come in other shares than in training: nothing done, the right prior, one by EM.

Test sets are drawn from the test split, without replacement: long-tailed as in training (IF 30), balanced (IF 1), and
with the order of the classes turned round (IF 30 inverted). Each head's logits become z/T + log π′ − log q: q is the
prior that the head says it answers for, π′ the right one of the set or that of EM over its images; `none` is z. T is 1,
or fitted on val by the likelihood of z/T + log v − log q, with v the class shares of val; `prior fitted` fits the p of
q ∝ n^p as well. Digits: the stages of `params.yaml` for some seeds, each variant adjusted, too. `--banks` measures
projects that have run already; what the output file holds of others stays in it.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from machine import ROOT, machine
from pipeline import run_stages
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from ltrec import artifacts, console, process
from ltrec.artifacts import Layout
from ltrec.config import params
from ltrec.data.downloads.digits import write_digits
from ltrec.models import heads
from ltrec.rebalancing.adjusting import Adjustable
from ltrec.rebalancing.feature_bank import FeatureBank
from ltrec.serving.priors import counted_prior, estimate_prior, reweighted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

Figures = dict[str, Any]

_IMBALANCE = 30
_SETS = ("IF 30", "IF 1", "IF 30 inverted")
_WAYS = ("none", "right", "em")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5, help="of digits, 0 … N-1; 0: no digits (default: 5)")
    parser.add_argument("--draws", type=int, default=40, metavar="N", help="of each test set (default: 40)")
    parser.add_argument(
        "--banks", type=Path, nargs="+", default=[], metavar="FOLDER",
        help="projects with featurized and rebalanced images; of several, seeds of the same, the mean is taken",
    )  # fmt: skip
    parser.add_argument("--name", metavar="NAME", help="of what --banks measures (default: the first folder's)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the JSON there, too")
    options = parser.parse_args()

    process.share_cores()
    console.set_verbosity(console.Verbosity.QUIET)
    kept = options.output and options.output.is_file()
    result: Figures = artifacts.read_json(options.output) if kept else {}
    about = {"machine": machine(), "draws": options.draws}
    if options.seeds:
        result["digits"] = about | _summary([_scores(*each, options.draws) for each in _digits(options.seeds)])
    if options.banks:
        layouts = [Layout(folder / "artifacts") for folder in options.banks]
        scores = [_scores(layout, variant, options.draws) for layout in layouts for variant in _variants(layout)]
        result[options.name or options.banks[0].resolve().name] = about | _summary(scores)
    text = json.dumps(result, indent=2) + "\n"
    if options.output:
        artifacts.write_text(options.output, text)
    sys.stdout.write(text)


def _digits(seeds: int) -> Iterator[tuple[Layout, str]]:
    """Yield a layout and a variant in it, of every seed."""
    settings = params.load(ROOT / "params.yaml")
    with tempfile.TemporaryDirectory(prefix="ltrec-priors-") as scratch:
        folder = Path(scratch)
        write_digits(folder / "data")
        adjusted = {
            f"{name}_adjusted": variant.model_copy(update={"adjust": True})
            for name, variant in settings.rebalance.items()
            if isinstance(variant, Adjustable)
        }
        settings = settings.model_copy(update={"rebalance": settings.rebalance | adjusted})
        for seed in range(seeds):
            run_stages(folder / f"seed-{seed}", folder / "data", settings, seed=seed)
            print(f"seed {seed}", file=sys.stderr)
            layout = Layout(folder / f"seed-{seed}" / "artifacts")
            for variant in settings.rebalance:
                yield layout, variant


def _variants(layout: Layout) -> list[str]:
    return sorted(file.parent.name for file in (layout.root / "rebalance").glob("*/head.safetensors"))


class Scores(NamedTuple):
    """What one head reaches: accuracy by calibration, set and way; how far EM's prior is from the right one."""

    variant: str
    temperature: float
    fitted_temperature: float
    fitted_power: float
    accuracy: dict[tuple[str, str, str], float]
    distance: dict[tuple[str, str], float]


def _scores(layout: Layout, variant: str, draws: int) -> Scores:
    head = heads.load(layout.head(variant), representation=artifacts.digest(layout.model))
    train, val, test = (FeatureBank.open(layout.features(split)).known() for split in artifacts.SPLITS)
    counts = np.bincount(train.labels.numpy(), minlength=head.classes)
    power = _power(layout, variant)
    (z_val, y_val), (z, labels) = (
        (heads.logits_of(head, bank.plain).double().numpy(), bank.labels.numpy()) for bank in (val, test)
    )
    temperature = _fitted(z_val, y_val, counts, power)[0]
    fitted, fitted_power = _fitted(z_val, y_val, counts, None)
    calibrations = {
        "as it is": (1.0, power), "calibrated": (temperature, power), "prior fitted": (fitted, fitted_power),
    }  # fmt: skip
    accuracy: dict[tuple[str, str, str], list[float]] = {}
    distance: dict[tuple[str, str], list[float]] = {}
    for calibration, (t, p) in calibrations.items():
        own = counted_prior(counts, p)
        probabilities = softmax(z / t, axis=1).astype(np.float32)
        for name in _SETS:
            for rows in _drawn(labels, counts, name, 1 if name == "IF 1" else draws):
                given, y = probabilities[rows], labels[rows]
                right = np.bincount(y, minlength=head.classes) / len(y)
                found = estimate_prior(given, own).prior
                answers = {
                    "none": given, "right": reweighted(given, own, right), "em": reweighted(given, own, found),
                }  # fmt: skip
                for way, answer in answers.items():
                    accuracy.setdefault((calibration, name, way), []).append(float((answer.argmax(1) == y).mean()))
                distance.setdefault((calibration, name), []).append(float(np.abs(found - right).sum() / 2))
    return Scores(
        variant, temperature, fitted, fitted_power,
        {key: fmean(values) for key, values in accuracy.items()},
        {key: fmean(values) for key, values in distance.items()},
    )  # fmt: skip


def _power(layout: Layout, variant: str) -> float:
    """Return what the head says of its prior; files from before they said it: only joint answers for that of train."""
    _, header = artifacts.load_tensors(layout.head(variant))
    is_joint = artifacts.read_json(layout.head_metrics(variant))["method"] == "joint"
    return float(header.get("prior_power", is_joint))


def _fitted(
    z: Floats, labels: NDArray[np.int64], counts: NDArray[np.int64], power: float | None
) -> tuple[float, float]:
    """Return the T, and if none is given the power of q ∝ n^power, that make val's labels likeliest as val is."""
    log_counts, log_shares = np.log(counts), np.log(np.bincount(labels, minlength=len(counts)) / len(labels))

    def negative_log_likelihood(point: Floats) -> float:
        p = point[1] if power is None else power
        shifted = log_softmax(z / math.exp(point[0]) + log_shares - p * log_counts, axis=1)
        return -float(shifted[np.arange(len(labels)), labels].mean())

    log_t, p = minimize(negative_log_likelihood, [0.0, power or 0.0], method="L-BFGS-B").x
    return math.exp(log_t), float(p if power is None else power)


def _drawn(labels: NDArray[np.int64], counts: NDArray[np.int64], name: str, times: int) -> Iterator[NDArray[np.int64]]:
    """Yield the rows of a test set, drawn anew each time; the profile falls with the training counts."""
    random, classes = np.random.default_rng(0), len(counts)
    rank = np.argsort(np.argsort(-counts, kind="stable"))
    most = np.bincount(labels, minlength=classes).min()
    places = {"IF 30": rank, "IF 1": np.zeros(classes), "IF 30 inverted": classes - 1 - rank}[name]
    sizes = np.maximum(1, np.rint(most * _IMBALANCE ** (-places / (classes - 1)))).astype(int)
    of_class = [np.flatnonzero(labels == label) for label in range(classes)]
    for _ in range(times):
        yield np.concatenate([random.permutation(rows)[:size] for rows, size in zip(of_class, sizes, strict=True)])


def _summary(scores: list[Scores]) -> Figures:
    """Means over seeds, with their standard errors where there are several, and whether the targets are met."""
    summary: Figures = {}
    for variant in dict.fromkeys(each.variant for each in scores):
        of_variant = [each for each in scores if each.variant == variant]
        table: Figures = {}
        for calibration in ("as it is", "calibrated", "prior fitted"):
            for name in _SETS:
                of = {way: [each.accuracy[calibration, name, way] for each in of_variant] for way in _WAYS}
                mean = {way: fmean(values) for way, values in of.items()}
                table.setdefault(calibration, {})[name] = {
                    **{way: round(value, 4) for way, value in mean.items()},
                    "standard_error": _standard_errors(of),
                    "distance_of_em": round(fmean(each.distance[calibration, name] for each in of_variant), 4),
                    "right_at_least_none": mean["right"] >= mean["none"] - 1e-9,
                    "em_within_a_point_of_right": mean["em"] >= mean["right"] - 0.01,
                }
        fits = {
            name: round(fmean(getattr(each, name) for each in of_variant), 3)
            for name in ("temperature", "fitted_temperature", "fitted_power")
        }
        summary[variant] = {"seeds": len(of_variant), **fits, **table}
    return summary


def _standard_errors(of: dict[str, list[float]]) -> dict[str, float | None]:
    """Return that of each way's mean over seeds, and of their gain over none."""
    gains = {f"{way} - none": [a - b for a, b in zip(of[way], of["none"], strict=True)] for way in ("right", "em")}
    return {
        name: round(stdev(values) / math.sqrt(len(values)), 4) if len(values) > 1 else None
        for name, values in (of | gains).items()
    }


if __name__ == "__main__":
    main()
