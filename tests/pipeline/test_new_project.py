"""A project that `ltrec init` lays out in an empty folder, from the wheel and not from the checkout."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from tests.pipeline.checkout import ROOT, Project, stages_run

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.slow
COUNTS = {"heron": 24, "owl": 14, "wren": 8}
STAGES = [
    "version", "prepare", "represent", "featurize", "rebalance@joint", "rebalance@ncm", "rebalance@crt",
    "rebalance@tau_norm", "rebalance@lws", "evaluate", "export",
]  # fmt: skip


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the wheel holds, as pip would lay it out."""
    folder = tmp_path_factory.mktemp("wheel")
    build = (sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder))
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(folder / "installed")
    return folder / "installed"


@pytest.fixture
def begun(installed: Path, tmp_path: Path) -> Callable[..., Project]:
    """Return a function that makes a project of three classes; its training is cut down to be quick."""

    def begin(name: str = "project", *options: str) -> Project:
        folder = tmp_path / name
        for number, (label, count) in enumerate(COUNTS.items()):
            for image in range(count):
                write(folder / "photos" / label / f"{image}.png", 60 * number, image)
        project = Project(folder)
        shutil.copytree(installed, tmp_path / f"{name} installed")
        project.env |= {"PYTHONPATH": str(tmp_path / f"{name} installed"), "GIT_CEILING_DIRECTORIES": str(tmp_path)}
        project.run("ltrec", "init", "folder", "--data", "photos", *options)
        project.set(
            {
                "represent.backbone.name": "cifar_resnet8",
                "represent.image.size": 16,
                "represent.image.resize": 16,
                "represent.epochs": 2,
                "rebalance.crt.epochs": 2,
                "rebalance.lws.epochs": 2,
                "evaluate.bootstrap": 20,
                "tracking.enabled": False,
            }
        )
        return project

    return begin


def write(file: Path, brightness: int, number: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = brightness + np.random.default_rng([brightness, number]).integers(0, 90, (24, 30, 3))
    Image.fromarray(pixels.astype(np.uint8)).save(file)


def test_it_runs_and_an_upgrade_or_more_images_rerun_what_they_change(begun: Callable[..., Project]) -> None:
    project = begun()
    package = Path(project.env["PYTHONPATH"]) / "ltrec"
    assert project.run("python", "-c", "import ltrec; print(ltrec.__file__)").strip().startswith(str(package))
    assert stages_run(project.run("dvc", "repro")) == STAGES
    assert set(json.loads(project.read("artifacts/evaluate/metrics.json"))) >= {"joint", "crt", "champion"}
    assert stages_run(project.run("dvc", "repro")) == ["version"], "only that looks whether ltrec has changed"
    project.run("dvc", "plots", "show", "--out", "page")
    assert "vega.js" in project.read("page/index.html").decode()

    metrics = package / "evaluation" / "metrics.py"
    metrics.write_text(metrics.read_text(encoding="utf-8") + "\n# a newer version\n", encoding="utf-8")
    assert stages_run(project.run("dvc", "repro")) == ["version", "evaluate"]

    for image in range(100, 106):
        write(project.folder / "photos" / "wren" / f"{image}.png", 120, image)
    ran = stages_run(project.run("dvc", "repro"))
    assert ran[:4] == STAGES[:4]
    assert ran[-2:] == STAGES[-2:]
    counts = {each["name"]: each for each in json.loads(project.read("artifacts/prepare/stats.json"))["classes"]}
    assert sum(counts["wren"][split] for split in ("train", "val", "test")) == 14

    committed = project.run("git", "status", "--short", "--untracked-files=all")
    assert not [
        line for line in committed.splitlines() if line.split()[-1].startswith(("photos/", "artifacts/prepare/t"))
    ]


def test_run_does_without_dvc_from_any_folder_of_the_project(begun: Callable[..., Project]) -> None:
    project = begun("alone")
    shutil.rmtree(project.folder / ".dvc")
    inside = project.folder / "notes" / "today"
    inside.mkdir(parents=True)
    below = Project(inside)
    below.env = project.env
    first = below.run("ltrec", "run")
    assert "run: represent\n" in first
    assert (project.folder / "artifacts/export/model.onnx").is_file()
    assert "up to date" in below.run("ltrec", "run").splitlines()[-1]
    answer = json.loads(below.run("ltrec", "--quiet", "predict", "--format", "json", "../../photos/owl/0.png"))
    assert answer[0]["path"] == "../../photos/owl/0.png"
    below.run("ltrec", "export", "--onnx", "--variant", "crt", "--output", "mine.onnx")
    assert (inside / "mine.onnx").is_file()
    project.set({"rebalance.crt.lr": 0.3})
    again = below.run("ltrec", "run")
    assert [line for line in again.splitlines() if line.startswith("run:") and "up to date" not in line] == [
        "run: rebalance crt", "run: evaluate", "run: export",
    ]  # fmt: skip


def test_what_exists_stays(begun: Callable[..., Project]) -> None:
    project = begun("twice")
    before = {name: project.read(name) for name in ("params.yaml", "dvc.yaml", ".gitignore")}
    said = project.run("ltrec", "init", "folder", "--data", "photos", code=2)
    assert "params.yaml: exists and stays as it is; move it away" in said
    (project.folder / "params.yaml").rename(project.folder / "old.yaml")
    project.run("ltrec", "init", "folder", "--data", "photos", "--epochs", "3")
    assert b"epochs: 3" in project.read("params.yaml")
    assert {name: project.read(name) for name in ("dvc.yaml", ".gitignore")} == {
        name: before[name] for name in ("dvc.yaml", ".gitignore")
    }


def test_a_zip_without_git_is_seen_before_anything_is_installed(tmp_path: Path) -> None:
    archive = tmp_path / "ltrec.zip"
    subprocess.run(["git", "archive", "--format", "zip", "--output", str(archive), "HEAD"], cwd=ROOT, check=True)
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(tmp_path / "zip")
    project = Project(tmp_path / "zip")
    project.env["GIT_CEILING_DIRECTORIES"] = str(tmp_path)
    said = project.run("make", "--silent", "scm")
    assert "no Git repository" in said
    # Without its `no_scm`, DVC would stop at once.
    assert "prepare" in project.run("dvc", "stage", "list", "--name-only")
    assert project.run("make", "--silent", "scm") == ""
    project.run("git", "init", "--quiet")
    assert "DVC goes with it" in project.run("make", "--silent", "scm")
    assert "no_scm" not in (project.folder / ".dvc/config.local").read_text()
    project.run("dvc", "stage", "list", "--name-only")
