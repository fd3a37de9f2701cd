"""Projects to run in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.pipeline.checkout import Project

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Project]:
    return lambda name: Project.checkout(tmp_path_factory.mktemp(name) / "project")


@pytest.fixture(scope="module")
def repeated(checkout: Callable[[str], Project]) -> tuple[Project, str]:
    """A project after its first `dvc repro`, and what that printed."""
    project = checkout("first")
    project.run("ltrec", "data", "digits")
    output = project.run("dvc", "repro")
    project.commit("first run")
    return project, output
