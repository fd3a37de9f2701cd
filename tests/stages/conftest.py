"""A project of three classes of small images, prepared, and with a representation."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from ltrec.artifacts import Layout
from ltrec.config.params import Params

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ltrec.models.heads import Head

    Build = Callable[..., Params]

# 15, 9 and 4 remain for training.
COUNTS = {"red": 20, "green": 14, "blue": 9}
METHODS = ("joint", "ncm", "crt", "tau_norm", "lws", "learnable_tau")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "artifacts")


def build_params(**sections: dict[str, Any]) -> Params:
    """Small and quick, in single keys overridden section by section."""
    small: dict[str, dict[str, Any]] = {
        "prepare": {"split": {"val": 2, "test": 3}},
        "represent": {
            "backbone": {"name": "cifar_resnet8"},
            "image": {"size": 8, "resize": 8},
            "augment": {"crop": {"name": "pad", "padding": 1}},
            "optimizer": {"name": "sgd", "lr": 0.05},
            "epochs": 4,
            "batch_size": 8,
        },
        "featurize": {"views": 1, "batch_size": 10},
        "rebalance": {
            name: {"method": name} | ({"epochs": 3, "batch_size": 8} if name in {"crt", "lws"} else {})
            for name in METHODS
        },
        "tracking": {"enabled": False},
    }
    for name, section in sections.items():
        small[name] = small.get(name, {}) | section
    return Params.model_validate({"device": "cpu", **small})


def load_head(variant: str) -> Head:
    """A variant's head, which is one for the network that is there."""
    from ltrec import artifacts
    from ltrec.models import heads

    layout = artifacts.Layout()
    return heads.load(layout.head(variant), representation=artifacts.digest(layout.model))


@contextlib.contextmanager
def inside(folder: Path) -> Iterator[None]:
    """The folder as the current project, and torch as it was afterwards."""
    import torch

    deterministic = torch.are_deterministic_algorithms_enabled()
    with contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch, torch.random.fork_rng(devices=[]):
        patch.delenv("DVC_ROOT", raising=False)
        patch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        yield
    torch.use_deterministic_algorithms(deterministic)


@pytest.fixture(scope="session")
def _prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from ltrec.stages import prepare

    folder = tmp_path_factory.mktemp("prepared")
    (folder / "params.yaml").touch()
    random = np.random.default_rng(0)
    for channel, (name, count) in enumerate(COUNTS.items()):
        (folder / "data" / name).mkdir(parents=True)
        for n in range(count):
            pixels = random.integers(0, 160, (16, 16, 3)).astype(np.uint8)
            pixels[..., channel] += 60
            Image.fromarray(pixels).save(folder / "data" / name / f"{n}.png")
    with inside(folder):
        prepare.run(build_params())
    return folder


@pytest.fixture(scope="session")
def _featurized(tmp_path_factory: pytest.TempPathFactory, _prepared: Path) -> Path:
    from ltrec.stages import featurize, represent

    folder = shutil.copytree(_prepared, tmp_path_factory.mktemp("featurized") / "project")
    with inside(folder):
        represent.run(build_params())
        featurize.run(build_params())
    return Path(folder)


@pytest.fixture
def prepared(_prepared: Path, tmp_path: Path) -> Iterator[Path]:
    """The current folder: a project with images and lists."""
    with inside(shutil.copytree(_prepared, tmp_path / "project")):
        yield Path.cwd()


@pytest.fixture
def featurized(_featurized: Path, tmp_path: Path) -> Iterator[Path]:
    """The current folder: a project with a representation and its features."""
    with inside(shutil.copytree(_featurized, tmp_path / "project")):
        yield Path.cwd()


@pytest.fixture
def params() -> Build:
    """Makes parameters; a keyword is a section whose keys go before the usual ones."""
    return build_params
