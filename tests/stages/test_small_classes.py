"""Classes without images in val and test, from the images to the exported file."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from ltrec import artifacts
from ltrec.artifacts import Layout
from ltrec.serving.predictor import Predictor
from ltrec.stages import evaluate, export, featurize, prepare, rebalance, represent

if TYPE_CHECKING:
    from pathlib import Path

    from tests.stages.conftest import Build

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # on a single core


@pytest.mark.slow
def test_a_class_that_is_kept_is_learnt_and_not_tested(prepared: Path, params: Build) -> None:
    layout = Layout()
    for file in sorted((prepared / "data" / "blue").glob("*.png"))[1:]:
        file.unlink()
    shutil.rmtree(layout.root)
    share = {"share": 0.2, "least": 2}
    given = params(prepare={"split": {"val": share, "test": share}}, evaluate={"bootstrap": 20})
    prepare.run(given)
    represent.run(given)
    featurize.run(given)
    for variant in given.rebalance:
        rebalance.run(given, variant)
    evaluate.run(given)
    export.run(given)
    assert artifacts.read_json(layout.stats)["not_tested"] == ["blue"]
    rows = artifacts.read_csv(layout.evaluation / "per_class.csv")
    assert [row["joint"] == "not tested" for row in rows] == [True, False, False]
    assert "not tested: 1 of 3 classes, 'blue'" in (layout.evaluation / "table.md").read_text(encoding="utf-8")
    assert Predictor(layout.onnx).card.classes == ("blue", "green", "red")
