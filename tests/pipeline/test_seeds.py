"""`ltrec seeds` with real stages and MLflow, in a project without DVC and Git."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from tests.pipeline.checkout import ROOT, Project

if TYPE_CHECKING:
    from pathlib import Path

PARAMS = """\
prepare: {source: {kind: folder, root: photos}, split: {val: 3, test: 4}}
represent:
  backbone: {name: cifar_resnet8}
  image: {size: 16, resize: 16}
  augment: {crop: {name: pad, padding: 1}}
  epochs: 2
  batch_size: 8
rebalance:
  joint: {method: joint}
  ncm: {method: ncm}
evaluate: {bootstrap: 20}
tracking: {system_metrics: false}
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Three classes of 24, 14 and 10 images, which their brightness tells apart."""
    for number, (label, count) in enumerate({"heron": 24, "owl": 14, "wren": 10}.items()):
        for image in range(count):
            file = tmp_path / "project" / "photos" / label / f"{image}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            pixels = 60 * number + np.random.default_rng([number, image]).integers(0, 90, (16, 16, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(file)
    (tmp_path / "project" / "params.yaml").write_text(PARAMS, encoding="utf-8")
    project = Project(tmp_path / "project")
    project.env |= {"PYTHONPATH": str(ROOT), "GIT_CEILING_DIRECTORIES": str(tmp_path)}
    return project


@pytest.mark.slow
def test_two_seeds_one_table_and_nothing_is_trained_twice(project: Project) -> None:
    first = project.run("ltrec", "seeds", "2")
    assert first.count("run: represent\n") == 2
    assert first.count("run: export\n") == 0
    assert "★ champion" in first
    table = json.loads(project.read("artifacts/seeds/table.json"))
    assert table["seeds"] == [0, 1]
    assert list(table["figures"]) == ["joint", "ncm", "champion"]
    values = table["figures"]["ncm"]["all"]["values"]
    for seed, value in enumerate(values):
        own = json.loads(project.read(f".ltrec/seeds/{seed}/artifacts/evaluate/metrics.json"))
        assert own["ncm"]["all"] == value
    assert sorted(path.name for path in (project.folder / "artifacts").iterdir()) == ["seeds"]

    again = project.run("ltrec", "seeds", "2")
    assert "run: " not in again
    assert again.count("is up to date") == 2
    assert json.loads(project.read("artifacts/seeds/table.json")) == table

    with closing(sqlite3.connect(project.folder / "mlflow.db")) as store:
        runs = store.execute("SELECT name, status, run_uuid FROM runs ORDER BY name").fetchall()
        assert [name.split(" ")[0] for name, *_ in runs] == ["seed-0", "seed-1", "seeds"]
        assert {status for _, status, _ in runs} == {"FINISHED"}
        parent = runs[-1][2]
        of_parent = "SELECT count(*) FROM tags WHERE key = 'mlflow.parentRunId' AND value = ?"
        assert store.execute(of_parent, (parent,)).fetchone() == (2,)
        found = store.execute("SELECT name, value FROM latest_metrics JOIN runs USING (run_uuid) WHERE key = 'ncm/all'")
        assert dict(found) == pytest.approx(
            {"seed-0": values[0], "seed-1": values[1], runs[-1][0]: sum(values) / 2}, rel=1e-6
        )
    assert not (project.folder / ".ltrec/seeds/0/mlflow.db").exists()
