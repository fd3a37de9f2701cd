"""A folder of small images that the tests of loading share."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

PATHS = [f"{n}.png" for n in range(11)]


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    pixels = np.random.default_rng(0).integers(0, 256, (len(PATHS), 16, 20, 3)).astype(np.uint8)
    for path, image in zip(PATHS, pixels, strict=True):
        Image.fromarray(image).save(root / path)
    return root


@pytest.fixture
def root(written: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(written, tmp_path / "images"))
