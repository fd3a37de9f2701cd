"""The smallest folder of one's own, with names that shells, YAML and Markdown would rather not see."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from tests.pipeline.checkout import stages_run

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.pipeline.checkout import Project

pytestmark = pytest.mark.slow
CLASSES = ['$HOME | "é"', "鳥 2"]


def test_two_classes_with_one_training_image_each(checkout: Callable[[str], Project]) -> None:
    project = checkout("own")
    rng = np.random.default_rng(0)
    for brightness, name in zip((20, 200), CLASSES, strict=True):
        for number in range(3):
            file = project.folder / "my photos" / name / f"{number}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            pixels = brightness + rng.integers(0, 40, (30, 40 + number, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(file)
    project.set(
        {
            "prepare.source.root": "my photos",
            "prepare.split.val": 1,
            "prepare.split.test": 1,
            "prepare.long_tail": None,
            "represent.epochs": 2,
            "rebalance.tau_norm": None,
            "tracking.enabled": False,
        }
    )
    project.run("dvc", "repro")
    metrics = json.loads(project.read("artifacts/evaluate/metrics.json"))
    assert metrics["joint"]["few"] is not None
    assert metrics["joint"]["many"] is metrics["joint"]["top5"] is None
    assert project.read("artifacts/prepare/classes.txt").decode().splitlines() == CLASSES
    assert project.read("artifacts/evaluate/per_class.csv").decode().count("\n") == 1 + len(CLASSES)
    answer = json.loads(project.run("ltrec", "--quiet", "predict", "--format", "json", f"my photos/{CLASSES[1]}/0.jpg"))
    assert {guess["class"] for guess in answer[0]["top"]} == set(CLASSES)
    assert stages_run(project.run("dvc", "repro")) == []
