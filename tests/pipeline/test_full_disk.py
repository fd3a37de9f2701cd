"""What a disk that fills leaves of DVC's own files, and the way out that the README names."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.pipeline.checkout import ROOT, stages_run

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.pipeline.checkout import Project

pytestmark = pytest.mark.slow


def test_cut_off_files_of_dvc_are_mended_as_the_readme_says(checkout: Callable[[str], Project]) -> None:
    project = checkout("full")
    project.run("ltrec", "data", "digits")
    project.run("dvc", "repro", "prepare")
    project.commit("prepared")
    lock, rwlock = project.folder / "dvc.lock", project.folder / ".dvc/tmp/rwlock"
    lock.write_bytes(b"")
    assert "dvc.lock' validation failed" in project.run("dvc", "repro", "prepare", code=255)
    project.run("git", "checkout", "dvc.lock")
    rwlock.write_text('{"a file": {"write', encoding="utf-8")
    assert "RWLock" in project.run("dvc", "repro", "prepare", code=255)

    lock.write_bytes(b"")
    (commands,) = re.findall(r"^    (rm -f \.dvc/tmp/rwlock.*)$", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE)
    assert stages_run(project.run("sh", "-c", commands.replace("dvc repro", "dvc repro prepare"))) == []
