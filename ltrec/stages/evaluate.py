"""Compare all variants on the test split, which is read here and nowhere else; name the champion."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from ltrec import artifacts, console, process, project
from ltrec.artifacts import Layout
from ltrec.compute.device import resolve
from ltrec.compute.precision import fast_float32
from ltrec.data.image_lists import read_classes, read_list
from ltrec.data.shot_groups import shot_groups
from ltrec.errors import UserError
from ltrec.evaluation import plot_rows, statistics, vega
from ltrec.evaluation.calibration import judge
from ltrec.evaluation.choice import choose, resampled_accuracy
from ltrec.evaluation.metrics import score
from ltrec.evaluation.open_set import evaluate_open_set, score_images
from ltrec.evaluation.open_set_report import KnownAndUnknown, OpenSetReport
from ltrec.evaluation.predictions import finite_logits, predict, weight_norms
from ltrec.evaluation.report import Report, Result, selected_on
from ltrec.models import heads
from ltrec.rebalancing.feature_bank import FeatureBank
from ltrec.rebalancing.head_figures import score_on_val
from ltrec.stages import bank_findings, recording

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from ltrec.config.params import Params
    from ltrec.evaluation.figures import PlotSettings
    from ltrec.evaluation.open_set import ScoredImages
    from ltrec.models.heads import Head


def run(params: Params) -> None:
    """Score every variant, choose the champion on val, write figures, tables and plots."""
    layout = Layout()
    with fast_float32():
        report = _compare(params, layout)
    if process.in_pipeline():
        _drop_unnamed(layout, params.rebalance)
    _warn_of_another_test_set(report, layout.evaluation_metrics)
    artifacts.write_json(layout.evaluation_metrics, report.as_json())
    artifacts.write_csv(layout.evaluation / "per_class.csv", report.per_class_rows())
    artifacts.write_text(layout.evaluation / "table.md", report.markdown())
    _write_plot_data(report, layout.plots)
    _draw(params.evaluate.plots, layout.plots, layout.plots / "images")
    bank_findings.write(layout, Path(params.prepare.source.root), report.names, report.groups)
    vega.provide(project.state_dir())
    _record(params, report, layout)
    console.show(report)
    console.say(f"evaluate: the champion is {report.champion} → {layout.evaluation}")


def _compare(params: Params, layout: Layout) -> Report:
    """Score every variant on the known images, each against joint, and tell known from unknown ones if there are."""
    settings, device = params.evaluate, resolve(params.device)
    joint = next((name for name, variant in params.rebalance.items() if variant.method == "joint"), None)
    names = read_classes(layout.classes)
    counts = read_list(layout.split_list("train"), len(names)).counts(len(names))
    groups = shot_groups(counts, settings.shots.many_above, settings.shots.few_below)
    test = FeatureBank.open(layout.features("test"), images=layout.split_digest("test"))
    known, representation = test.known(), test.header["representation"]
    labels = _labels(known, len(names), layout.features("test"))
    val = FeatureBank.open(layout.features("val"), representation=representation, images=layout.split_digest("val"))
    known_val = val.known()
    fits = {name: artifacts.read_json(layout.head_metrics(name)) for name in params.rebalance}
    val_scores = {name: score_on_val(fit, layout.head_metrics(name)) for name, fit in fits.items()}

    predictions, certainties, norms, rejection, right_on_val = {}, {}, {}, {}, {}
    for name in params.rebalance:
        where = str(layout.head(name))
        head = _head(layout, name, representation, len(names)).to(device)
        predictions[name], certainties[name] = predict(head, known.plain, known.labels, where=where)
        norms[name] = weight_norms(head)
        right_on_val[name] = (heads.predictions_of(head, known_val.plain).cpu() == known_val.labels).numpy()
        if known is not test:
            rejection[name] = evaluate_open_set(*(_scored(head, bank, where) for bank in (test, val)))

    resampled = resampled_accuracy(
        right_on_val, known_val.labels.numpy(), resamples=settings.bootstrap, seed=params.seed
    )  # fmt: skip
    if settings.prefer == "simplest" and not resampled:
        console.warn(
            "params.yaml: evaluate.prefer: simplest needs a class with two val images, and there is none: the best is"
            " taken"
        )
    choice = choose(
        val_scores, {name: variant.complexity for name, variant in params.rebalance.items()}, resampled,
        prefer=settings.prefer,
    )  # fmt: skip
    right = {name: answers.predicted == labels for name, answers in predictions.items()}
    comparisons = statistics.compare(right, joint)
    intervals = statistics.bootstrap(labels, predictions, groups, resamples=settings.bootstrap, seed=params.seed)
    results = {
        name: Result(
            answers, score(labels, answers, groups), intervals[name], comparisons.get(name), fits[name], norms[name],
            judge(certainties[name], right[name], labels),
        )
        for name, answers in predictions.items()
    }  # fmt: skip
    open_set = None
    if known is not test:
        images = (KnownAndUnknown.of(bank.labels.numpy()) for bank in (test, val))
        open_set = OpenSetReport(rejection, choice.champion, *images)
    lists = (read_list(layout.split_list(split), len(names), unknown=True) for split in ("val", "test"))
    chosen_on = selected_on(*(frozenset(images.paths) for images in lists))
    test_set = layout.split_digest("test").read_text(encoding="utf-8").strip()
    return Report(names, counts, groups, labels, results, choice, joint, open_set, chosen_on, test_set)


def _head(layout: Layout, variant: str, representation: str, classes: int) -> Head:
    head = heads.load(layout.head(variant), representation=representation)
    if head.classes != classes:
        raise UserError(
            f"knows {head.classes} classes, classes.txt has {classes}; run `dvc repro`", where=str(layout.head(variant))
        )
    return head


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


def _scored(head: Head, bank: FeatureBank, where: str) -> ScoredImages:
    logits = (block.cpu().numpy() for _, block in finite_logits(head, bank.plain, where))
    return score_images(logits, bank.labels.numpy())


def _drop_unnamed(layout: Layout, named: Collection[str]) -> None:
    """Remove what variants left that `params.yaml` no longer names; DVC hashes the folder as a whole."""
    folder = layout.root / "rebalance"
    for variant in sorted(folder.iterdir()) if folder.is_dir() else ():
        ours = layout.head(variant.name).is_file() or layout.head_metrics(variant.name).is_file()
        if ours and variant.name not in named and not variant.is_symlink():
            shutil.rmtree(variant)
            console.say(f"evaluate: removed {variant}: params.yaml has no variant of that name")


def _write_plot_data(report: Report, folder: Path) -> None:
    """Write CSV for `dvc plots`; a table without rows keeps its header, since DVC expects every file promised."""
    for name, rows in plot_rows.tables(report).items():
        if rows:
            artifacts.write_csv(folder / f"{name}.csv", rows)
        else:
            artifacts.write_text(folder / f"{name}.csv", plot_rows.HEADERS[name] + "\n")


def _draw(settings: PlotSettings, tables: Path, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    for table in sorted(tables.glob("*.csv")):
        settings.draw(table, folder)


def _record(params: Params, report: Report, layout: Layout) -> None:
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
                run.tags(_foundations(report))
                run.metrics(_present(report.metrics(name)))
                run.file(table)
    with recording.stage_run(params, "evaluate") as run:
        run.params({"evaluate": params.evaluate.model_dump(mode="json")})
        run.tags({"champion": report.champion} | _foundations(report))
        run.metrics(_present(report.metrics(report.champion) | {"champion_doubt": report.choice.doubt}))
        for file in ("metrics.json", "per_class.csv", "table.md", *bank_findings.TABLES):
            run.file(layout.evaluation / file)
        for image in sorted((layout.plots / "images").glob("*")):
            run.file(image, "plots")


def _foundations(report: Report) -> dict[str, str]:
    """Return what figures must have in common to be compared."""
    return {"selected_on": report.selected_on} | ({"test_set": report.test_set} if report.test_set else {})


def _warn_of_another_test_set(report: Report, file: Path) -> None:
    """Say that the figures do not compare with those of the commit, which `dvc metrics diff` shows beside them.

    Where there is no commit of them, they are compared with those of the last evaluation, which `.ltrec/` remembers:
    DVC removes the file before the stage runs.
    """
    memory = project.state_dir() / "evaluate" / "test_set.txt"
    committed = project.committed(file)
    if committed is not None:
        earlier, where = _test_set(committed), f"the last commit's {file}"
    else:
        earlier, where = memory.read_text(encoding="utf-8").strip() if memory.is_file() else None, "the last evaluation"
    if earlier and earlier != report.test_set:
        console.warn(
            f"evaluate: {where} stands on other test images, or other labels of them: its figures and these are not"
            " comparable"
        )
    artifacts.write_text(memory, f"{report.test_set}\n")


def _test_set(metrics: str) -> str | None:
    """Return what a `metrics.json` says of its test images; None where it says nothing."""
    try:
        found = json.loads(metrics).get("test_set")
    except (ValueError, AttributeError):
        return None
    return found if isinstance(found, str) else None


def _present(figures: Mapping[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in figures.items() if value is not None}
