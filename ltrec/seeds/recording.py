"""Runs in MLflow for seeds: one parent for all of them, with a child for each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ltrec import artifacts, pipeline, tracking
from ltrec.evaluation.metrics import FIGURES
from ltrec.stages.recording import INDIFFERENT

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ltrec.config.params import Params
    from ltrec.seeds.folder import SeedFolder
    from ltrec.seeds.table import SeedTable


def tell_of_seed(params: Params, first: SeedFolder, folder: SeedFolder) -> None:
    """Tell the seed's own run of its learning curves, and of each variant's figures as `crt/all`.

    Args:
        params: The project's parameters.
        first: The folder of the first seed, whose images stand for the data in the parent's state.
        folder: That of the seed.
    """
    if not params.tracking.enabled:
        return
    evaluation = folder.evaluation()
    champion = str(evaluation["champion"])
    variants = {name: evaluation[name] for name in params.rebalance} | {"champion": evaluation[champion]}
    with tracking.stage_run(_state(params, first), "seed", f"seed-{folder.seed}") as run:
        run.params({"seed": folder.seed})
        run.tags({"champion": champion, "ltrec.seed_dataset": folder.dataset()})
        run.history(artifacts.read_csv(folder.layout.history), "represent")
        run.metrics({f"{name}/{figure}": of[figure] for name, of in variants.items() for figure in FIGURES})
        for file in ("metrics.json", "per_class.csv", "table.md"):
            run.file(folder.layout.evaluation / file)


def tell_of_all(params: Params, first: SeedFolder, table: SeedTable, files: Sequence[Path]) -> None:
    """Tell the parent run of means, intervals and differences."""
    if not params.tracking.enabled:
        return
    with tracking.stage_run(_state(params, first), "seeds") as run:
        run.params(params.model_dump(mode="json", include={"represent", "rebalance"}))
        run.tags({"seeds": ", ".join(map(str, table.seeds))})
        run.metrics(table.metrics())
        for file in files:
            run.file(file)


def _state(params: Params, first: SeedFolder) -> tracking.Pipeline:
    """Return the state that all seeds have in common: more of them are more children of the same parent."""
    indifferent: dict[str, Any] = INDIFFERENT | {"seed": True}
    settings, dataset = params.model_dump(mode="json", exclude=indifferent), first.dataset()
    return tracking.Pipeline(
        key=artifacts.digest("seeds", first.seed, settings, dataset, pipeline.code_digest())[:16],
        dataset=dataset,
        **params.tracking.model_dump(exclude={"enabled"}),
        kind="seeds",
    )
