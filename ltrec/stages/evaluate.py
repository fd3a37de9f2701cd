"""Compare all variants on the test split, which is read here and nowhere else; name the champion."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ltrec import artifacts, console
from ltrec.data.shot_groups import shot_groups
from ltrec.errors import UserError
from ltrec.evaluation import metrics, vega
from ltrec.evaluation import open_set as openset
from ltrec.stages import recording

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from collections.abc import Set as AbstractSet

    from numpy.typing import NDArray
    from torch import Tensor

    from ltrec.config.params import Params
    from ltrec.evaluation.figures import PlotSettings
    from ltrec.evaluation.report import Report, SelectedOn
    from ltrec.models.heads import Head
    from ltrec.rebalancing.feature_bank import FeatureBank
    from ltrec.rebalancing.selection import Score


def run(params: Params) -> None:
    """Score every variant, choose the champion on val, write figures, tables and plots."""
    from ltrec.compute.precision import fast_float32
    from ltrec.project import state_dir

    layout = artifacts.Layout()
    with fast_float32():
        report = _compare(params, layout)
    if "DVC_STAGE" in os.environ:
        _drop_unnamed(layout, params.rebalance)
    artifacts.write_json(layout.evaluation_metrics, report.as_json())
    artifacts.write_csv(layout.evaluation / "per_class.csv", report.per_class_rows())
    artifacts.write_text(layout.evaluation / "table.md", report.markdown())
    _write_plot_data(report, layout.plots)
    _draw(params.evaluate.plots, layout.plots, layout.plots / "images")
    vega.provide(state_dir())
    _track(params, report, layout)
    console.show(report)
    console.say(f"evaluate: the champion is {report.champion} → {layout.evaluation}")


def _drop_unnamed(layout: artifacts.Layout, named: Iterable[str]) -> None:
    """Remove what variants left that `params.yaml` no longer names; DVC hashes the folder as a whole."""
    keep = set(named)
    folder = layout.root / "rebalance"
    for variant in sorted(folder.iterdir()) if folder.is_dir() else ():
        ours = layout.head(variant.name).is_file() or layout.head_metrics(variant.name).is_file()
        if variant.is_dir() and not variant.is_symlink() and variant.name not in keep and ours:
            shutil.rmtree(variant)
            console.say(f"evaluate: removed {variant}: params.yaml has no variant of that name")


def _compare(params: Params, layout: artifacts.Layout) -> Report:
    """Score every variant on the known images, each against joint, and tell known from unknown ones if there are."""
    from ltrec.compute.device import resolve
    from ltrec.data.image_lists import read_classes, read_list
    from ltrec.evaluation.open_set_report import KnownAndUnknown, OpenSetReport
    from ltrec.evaluation.report import Report, Result
    from ltrec.models import heads
    from ltrec.rebalancing.feature_bank import FeatureBank

    names, device = read_classes(layout.classes), resolve(params.device)
    counts = read_list(layout.split_list("train"), len(names)).counts(len(names))
    shots = params.evaluate.shots
    groups = shot_groups(counts, shots.many_above, shots.few_below)
    whole = FeatureBank.open(layout.features("test"), classes=layout.classes)
    bank = whole.known()
    labels = _labels(bank, len(names), layout.features("test"))
    # Val is needed to choose thresholds on, where there is something to reject.
    representation = whole.header["representation"]
    val = FeatureBank.open(layout.features("val"), representation=representation) if bank is not whole else None

    fitted = {variant: artifacts.read_json(layout.head_metrics(variant)) for variant in params.rebalance}
    on_val = {variant: _on_val(own, layout.head_metrics(variant)) for variant, own in fitted.items()}
    champion = max(on_val, key=on_val.__getitem__)
    predictions, norms, rejection = {}, {}, {}
    for variant in params.rebalance:
        head = heads.load(layout.head(variant), representation=representation)
        where = str(layout.head(variant))
        if head.classes != len(names):
            raise UserError(f"knows {head.classes} classes, classes.txt has {len(names)}; run `dvc repro`", where=where)
        head = head.to(device)
        predictions[variant] = predict(head, bank, where)
        if val is not None:
            rejection[variant] = evaluate_open_set(head, whole, val, where)
        norms[variant] = weight_norms(head)

    reference = next((name for name, settings in params.rebalance.items() if settings.method == "joint"), None)
    right = {variant: given.predicted == labels for variant, given in predictions.items()}
    others = [variant for variant in predictions if variant != reference]
    pairings = {name: metrics.mcnemar(right[name], right[reference]) for name in others} if reference else {}
    adjusted = dict(zip(pairings, metrics.holm([pair.p_value for pair in pairings.values()]), strict=True))

    intervals = metrics.bootstrap(labels, predictions, groups, resamples=params.evaluate.bootstrap, seed=params.seed)
    results = {
        name: Result(
            given, metrics.score(labels, given, groups), intervals[name],
            pairings.get(name), adjusted.get(name), fitted[name], norms[name],
        )
        for name, given in predictions.items()
    }  # fmt: skip
    rejected = None
    if val is not None:
        rejected = OpenSetReport(
            rejection, champion, KnownAndUnknown.of(whole.labels.numpy()), KnownAndUnknown.of(val.labels.numpy())
        )
    on = selected_on(*(_paths(layout.split_list(split), len(names)) for split in ("val", "test")))
    return Report(names, counts, groups, labels, results, champion, reference, openset=rejected, selected_on=on)


def _paths(file: Path, classes: int) -> frozenset[str]:
    from ltrec.data.image_lists import read_list

    return frozenset(read_list(file, classes, unknown=True).paths)


def selected_on(val: AbstractSet[str], test: AbstractSet[str]) -> SelectedOn:
    """Which split chose epoch, hyper-parameters and champion: test, where val shares images with it."""
    return "val" if val.isdisjoint(test) else "test"


def weight_norms(head: Head) -> NDArray[np.float64] | None:
    """‖w_j‖ of each class, scaled as the head scales its logits, (C,); None for a head without class weights."""
    weight, scale = getattr(head, "weight", None), getattr(head, "scale", None)
    if weight is None:
        return None
    norms = weight.detach().double().norm(dim=1)
    return np.asarray((norms if scale is None else norms * scale.detach().abs()).cpu().numpy())


def _labels(bank: FeatureBank, classes: int, path: Path) -> NDArray[np.int64]:
    labels = bank.labels.numpy()
    if not len(labels):
        raise UserError("has no images; params.yaml: prepare.split.test must leave some", where=str(path))
    if labels.min() < 0 or labels.max() >= classes:
        raise UserError(
            f"has labels {labels.min()} … {labels.max()}, but there are {classes} classes; run `dvc repro`",
            where=str(path),
        )
    return labels


def _on_val(fitted: dict[str, Any], path: Path) -> Score:
    from ltrec.rebalancing.selection import Score

    try:
        return Score(*(float(fitted["val"][name]) for name in Score._fields))
    except (KeyError, TypeError, ValueError):
        raise UserError(
            f"has no numbers val.{' and val.'.join(Score._fields)}; delete it and run `ltrec rebalance` again",
            where=str(path),
        ) from None


def predict(head: Head, bank: FeatureBank, where: str = "") -> metrics.Predictions:
    """What a head says to every image of a bank."""
    parts = [
        metrics.predictions(logits, bank.labels[some].to(logits.device)) for some, logits in _logits(head, bank, where)
    ]
    return metrics.Predictions(
        np.concatenate([part.predicted for part in parts]), np.concatenate([part.in_top5 for part in parts])
    )


def evaluate_open_set(head: Head, test: FeatureBank, val: FeatureBank, where: str) -> dict[str, Any]:
    """How well a head tells unknown images from known ones, with thresholds chosen on val."""
    judged = (
        openset.rejection_scores(
            (logits.cpu().numpy() for _, logits in _logits(head, bank, where)), bank.labels.numpy()
        )
        for bank in (test, val)
    )
    return openset.figures(*judged)


def _logits(head: Head, bank: FeatureBank, where: str) -> Iterator[tuple[slice, Tensor]]:
    """Of all images of a bank, some at a time: which, and (n, C)."""
    from ltrec.models.heads import logits_in_blocks
    from ltrec.rebalancing.selection import all_finite

    for some, logits in logits_in_blocks(head, bank.plain):
        if not all_finite(logits):
            raise UserError("a logit is not a finite number: the head is damaged; fit it again", where=where)
        yield some, logits


def _write_plot_data(report: Report, folder: Path) -> None:
    """CSV for `dvc plots`; a table without rows keeps its header, since DVC expects every file it was promised."""
    from ltrec.evaluation import plot_rows

    for name, (rows, header) in plot_rows.tables(report).items():
        if rows:
            artifacts.write_csv(folder / f"{name}.csv", rows)
        else:
            artifacts.write_text(folder / f"{name}.csv", header + "\n")


def _draw(settings: PlotSettings, tables: Path, folder: Path) -> None:
    """All plots that the variants give something to draw for."""
    shutil.rmtree(folder, ignore_errors=True)
    for table in sorted(tables.glob("*.csv")):
        settings.draw(table, folder)


def _track(params: Params, report: Report, layout: artifacts.Layout) -> None:
    """Put each variant's figures on its own run, so that MLflow compares methods; the rest on the parent."""
    # A stage that DVC did not rerun in this state has not told it anything: its run is filled in here.
    with recording.stage_run(params, "represent") as run:
        run.params({"represent": params.represent.model_dump(mode="json"), "seed": params.seed})
        run.history(artifacts.read_csv(layout.history), "represent")
        run.file(layout.history)
    with tempfile.TemporaryDirectory() as scratch:
        for name in report.results:
            table = Path(scratch) / name / "per_class.csv"
            artifacts.write_csv(table, report.per_class_rows([name]))
            with recording.stage_run(params, "rebalance", variant=name) as run:
                run.params({"rebalance": params.rebalance[name].model_dump(mode="json"), "seed": params.seed})
                run.tags({"selected_on": report.selected_on})
                run.metrics(_present(report.metrics(name)))
                run.file(table)
    with recording.stage_run(params, "evaluate") as run:
        run.params({"evaluate": params.evaluate.model_dump(mode="json")})
        run.tags({"champion": report.champion, "selected_on": report.selected_on})
        run.metrics(_present(report.metrics(report.champion)))
        for file in ("metrics.json", "per_class.csv", "table.md"):
            run.file(layout.evaluation / file)
        for image in sorted((layout.plots / "images").glob("*")):
            run.file(image, "plots")


def _present(figures: Mapping[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in figures.items() if value is not None}
