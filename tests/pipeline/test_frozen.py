"""A backbone without training through the real commands: what runs, and what another setting runs again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.pipeline.checkout import stages_run

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.pipeline.checkout import Project

pytestmark = pytest.mark.slow
VARIANTS = [f"rebalance@{name}" for name in ("joint", "crt", "tau_norm")]


def test_from_images_to_an_exported_champion_without_training(checkout: Callable[[str], Project]) -> None:
    project = checkout("frozen")
    project.set({"represent.epochs": 0, "export.variant": "joint", "tracking.enabled": False})
    project.run("ltrec", "data", "digits")
    output = project.run("dvc", "repro")
    assert stages_run(output) == ["prepare", "represent", "featurize", *VARIANTS, "evaluate", "export"]
    assert "keeps a random backbone" in output
    assert project.read("artifacts/represent/history.csv") == b"epoch,loss,accuracy,val,lr\n"
    metrics = json.loads(project.read("artifacts/evaluate/metrics.json"))
    assert metrics["joint"]["all"] > 0.2, "a random network's features tell digits apart better than chance"
    assert json.loads(project.read("artifacts/export/check.json"))["method"] == "joint"
    assert "learning curves" in project.run("dvc", "plots", "show", "--json")
    assert stages_run(project.run("dvc", "repro")) == []

    # Another fit of the joint classifier trains no network, and one of the trained network's own fits none.
    project.set({"featurize.probe": {"epochs": 2}})
    assert stages_run(project.run("dvc", "repro", "evaluate")) == ["featurize", *VARIANTS, "evaluate"]
    project.set({"represent.epochs": 1})
    again = project.run("dvc", "repro", "evaluate")
    assert stages_run(again) == ["represent", "featurize", *VARIANTS, "evaluate"]
    assert "joint classifier fitted" in output
    assert "joint classifier fitted" not in again
