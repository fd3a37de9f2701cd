"""What MLflow is told of seeds: one parent, a child for each, figures by variant."""

from __future__ import annotations

import contextlib
import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from ltrec import tracking
from ltrec.config import params as params_module
from ltrec.seeds import recording
from ltrec.seeds.folder import SeedFolder
from ltrec.seeds.table import SeedTable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ltrec.config.params import Params

TEXT = """
represent: {{backbone: {{name: cifar_resnet8}}, epochs: {epochs}}}
rebalance: {{joint: {{method: joint}}, crt: {{method: crt}}}}
tracking: {{enabled: {enabled}}}
"""
FIGURES = ("many", "medium", "few", "all", "top5", "balanced", "macro_f1")


class Told:
    """Stands where the tracking stands."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.keys: list[str] = []
        self.metrics: dict[tuple[str, str | None], dict[str, float]] = {}
        self.files: list[str] = []
        monkeypatch.setattr(tracking, "stage_run", self._stage_run)

    @contextlib.contextmanager
    def _stage_run(
        self, pipeline: tracking.Pipeline, stage: str, variant: str | None = None
    ) -> Iterator[SimpleNamespace]:
        assert pipeline.kind == "seeds"
        self.keys.append(pipeline.key)
        yield SimpleNamespace(
            params=lambda _: None,
            tags=lambda _: None,
            history=lambda rows, prefix: None,  # noqa: ARG005
            metrics=lambda content: self.metrics.update({(stage, variant): content}),
            file=lambda path: self.files.append(path.name),
        )


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    return Told(monkeypatch)


def settings(*, epochs: int = 1, enabled: str = "true") -> Params:
    return params_module.parse(TEXT.format(epochs=epochs, enabled=enabled))


def finished(tmp_path: Path, params: Params, seed: int, images: str = "images") -> SeedFolder:
    folder = SeedFolder(tmp_path / str(seed), params.model_copy(update={"seed": seed}))
    figures = {name: dict.fromkeys(FIGURES, value + seed / 10) for name, value in (("joint", 0.5), ("crt", 0.7))}
    content: dict[str, Any] = figures | {"champion": "crt", "selected_on": "val"}
    for file, text in (
        (folder.layout.evaluation_metrics, json.dumps(content)),
        (folder.layout.stats, json.dumps({"digest": images})),
        (folder.layout.history, "epoch,loss\n1,0.5\n"),
    ):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return folder


def tell(tmp_path: Path, params: Params, *seeds: int, images: str = "images") -> None:
    folders = [finished(tmp_path, params, seed, images) for seed in seeds]
    for folder in folders:
        recording.tell_of_seed(params, folders[0], folder)
    table = SeedTable(seeds, [folder.evaluation() for folder in folders], list(params.rebalance), "joint")
    recording.tell_of_all(params, folders[0], table, [tmp_path / "table.md"])


def test_a_child_has_figures_by_variant_and_the_parent_their_means(told: Told, tmp_path: Path) -> None:
    tell(tmp_path, settings(), 0, 1)
    assert list(told.metrics) == [("seed", "seed-0"), ("seed", "seed-1"), ("seeds", None)]
    assert told.metrics["seed", "seed-1"]["crt/all"] == pytest.approx(0.8)
    assert told.metrics["seed", "seed-1"]["champion/all"] == pytest.approx(0.8)
    parent = told.metrics["seeds", None]
    assert parent["crt/all"] == pytest.approx(0.75)
    # Two seeds 0.1 apart: s/√2 = 0.05, t(0.975, 1) = 12.706205.
    assert parent["crt/all_half_width"] == pytest.approx(0.05 * 12.706205)
    assert parent["crt/all_minus_joint"] == pytest.approx(0.2)
    assert "table.md" in told.files


def test_the_parent_is_of_parameters_and_images_and_not_of_how_many(told: Told, tmp_path: Path) -> None:
    tell(tmp_path, settings(), 0, 1)
    (key,) = set(told.keys)
    for params, seeds, images, same in (
        (settings(), (0, 1, 2), "images", True),
        (settings().model_copy(update={"seed": 9}), (0, 1), "images", True),
        (settings(epochs=2), (0, 1), "images", False),
        (settings(), (0, 1), "others", False),
    ):
        told.keys.clear()
        tell(tmp_path, params, *seeds, images=images)
        assert (set(told.keys) == {key}) is same


def test_without_tracking_nothing_is_told(told: Told, tmp_path: Path) -> None:
    tell(tmp_path, settings(enabled="false"), 0, 1)
    assert not told.keys
