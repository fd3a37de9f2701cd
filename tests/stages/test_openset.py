"""A class that no stage learns, from the folder to the table: in val and test, and in nothing that is fitted."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ltrec import artifacts
from ltrec.artifacts import Layout
from ltrec.data.image_lists import read_classes, read_list
from ltrec.rebalancing.feature_bank import FeatureBank
from ltrec.serving.predictor import Predictor
from ltrec.stages import evaluate, export, featurize, prepare, rebalance, represent
from tests.scores import balanced_accuracy
from tests.stages.conftest import METHODS, build_params, load_head

LAYOUT = Layout()
SECTIONS = {
    "prepare": {"split": {"val": 2, "test": 3}, "openset": {"classes": ("blue",), "val": 0.4}},
    "evaluate": {"bootstrap": 0, "plots": {"dpi": 50}},
}


@pytest.mark.usefixtures("prepared")
def test_unknown_images_go_through_all_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "_draw", lambda *_: None)  # takes a second
    monkeypatch.setattr(evaluate.vega, "provide", lambda _: None)
    params = build_params(**SECTIONS)
    prepare.run(params)
    represent.run(params)
    featurize.run(params)
    for variant in METHODS:
        rebalance.run(params, variant)
    evaluate.run(params)

    assert read_classes(LAYOUT.classes) == ("green", "red")
    # Of nine blue images ⌊.4·9⌋ go to val.
    wanted = {"val": [0] * 2 + [1] * 2 + [-1] * 3, "test": [0] * 3 + [1] * 3 + [-1] * 6}
    for split, labels in wanted.items():
        assert read_list(LAYOUT.split_list(split), 2, unknown=True).labels.tolist() == labels  # type: ignore[arg-type]
        assert FeatureBank.open(LAYOUT.features(split)).labels.tolist() == labels  # type: ignore[arg-type]

    val, test = (FeatureBank.open(LAYOUT.features(split)) for split in ("val", "test"))  # type: ignore[arg-type]
    joint = load_head("joint")
    reached = balanced_accuracy(joint(val.plain[:4]), val.labels[:4])
    assert float(artifacts.read_csv(LAYOUT.history)[-1]["val"]) == pytest.approx(reached)
    found = artifacts.read_json(LAYOUT.evaluation_metrics)
    for variant in METHODS:
        head = load_head(variant)
        on_val = artifacts.read_json(LAYOUT.head_metrics(variant))["val"]
        assert on_val["balanced"] == pytest.approx(balanced_accuracy(head(val.plain[:4]), val.labels[:4]))
        right = head(test.plain[:6]).argmax(dim=1) == test.labels[:6]
        assert found[variant]["all"] == pytest.approx(float(right.double().mean()))
        # Two classes: the largest probability is never below the published threshold, and all are accepted.
        hits = int(right.sum())
        assert found[variant]["openset"]["f_measure_at_0.1"] == pytest.approx(2 * hits / (6 + hits + 6))
        energy = torch.logsumexp(head(test.plain).double(), dim=1)
        ahead = (energy[:6, None] > energy[None, 6:]).double() + 0.5 * (energy[:6, None] == energy[None, 6:])
        assert found[variant]["openset"]["energy"]["auroc"] == pytest.approx(float(ahead.mean()), abs=1e-6)
    # What is deployed rejects by the threshold that was chosen on val.
    export.run(params, variant="joint")
    assert Predictor(Path("joint.onnx")).card.unknown_below == found["joint"]["openset"]["msp"]["threshold"]
    assert "6 known and 6 unknown test images" in (LAYOUT.evaluation / "table.md").read_text(encoding="utf-8")
