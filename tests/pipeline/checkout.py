"""Copies of this checkout in which the real commands run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parents[2]
# Few epochs, few draws: what the tests look at does not depend on them.
QUICK = {
    "represent.epochs": 12,
    "rebalance.crt.epochs": 3,
    "evaluate.bootstrap": 50,
    # To DVC one variant is like another; what each method does is tested without it.
    "rebalance.ncm": None,
    "rebalance.lws": None,
}


class Project:
    """A Git checkout of the working tree in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # Without SHELL, DVC's commands run in /bin/sh, as they do in containers, in CI and under cron.
        dropped = ("DVC_", "MLFLOW_", "SHELL")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
        self.env = kept | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONUNBUFFERED": "1"}

    @classmethod
    def checkout(cls, folder: Path) -> Project:
        project = cls(folder)
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        for name in filter(None, listed.split("\0")):
            if (ROOT / name).is_file() and not name.startswith("artifacts/") and name != "dvc.lock":
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, target)
        project.set(QUICK)
        project.run("git", "init", "--quiet")
        project.commit("start")
        return project

    def copy(self, folder: Path) -> Project:
        """Return a project in the same state somewhere else."""
        shutil.copytree(self.folder, folder, symlinks=True)
        return Project(folder)

    def set(self, values: Mapping[str, Any]) -> None:
        """Change parameters by their dotted paths; None takes one away."""
        yaml = YAML()
        file = self.folder / "params.yaml"
        params = yaml.load(file)
        for path, value in values.items():
            *sections, last = path.split(".")
            section = params
            for name in sections:
                section = section.setdefault(name, {})
            if value is None:
                del section[last]
            else:
                section[last] = value
        yaml.dump(params, file)

    def commit(self, message: str) -> None:
        self.run("git", "add", "--all")
        identity = ("-c", "user.name=test", "-c", "user.email=test@example.org")
        self.run("git", *identity, "commit", "--quiet", "--allow-empty", "--message", message)

    def run(self, *command: str, code: int = 0) -> str:
        """Run to the end; the output of both streams."""
        done = subprocess.run(
            command, cwd=self.folder, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            check=False, timeout=300,
        )  # fmt: skip
        assert done.returncode == code, done.stdout
        return done.stdout

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Run beside the test, in a process group of its own as a terminal would."""
        return subprocess.Popen(
            command, cwd=self.folder, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        )  # fmt: skip

    def read(self, path: str) -> bytes:
        return (self.folder / path).read_bytes()


def stages_run(output: str) -> list[str]:
    """The stages that a `dvc repro` really ran, in order."""
    return [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage ")]
