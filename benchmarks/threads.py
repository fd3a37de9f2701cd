"""Trainings side by side: OpenMP's threads spinning while they wait, as by default, shortly, or not; prints JSON.

This is why `ltrec.process.share_cores` sets GOMP_SPINCOUNT. The represent stage trains some epochs on handwritten
digits, once alone and several at a time, as queued experiments do.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from machine import ROOT, machine
from ruamel.yaml import YAML

from ltrec import artifacts, console
from ltrec.config import params
from ltrec.data.downloads.digits import write_digits
from ltrec.stages import prepare

# Only the stage itself is timed, not the import of torch. The command line, which sets the policy, is left out.
_TRAIN = """
import time, pathlib, torch
from ltrec import console, params
from ltrec.stages import represent
console.set_verbosity(console.Verbosity.QUIET)
settings = params.load(pathlib.Path("params.yaml"))
start = time.perf_counter()
represent.run(settings)
print(time.perf_counter() - start)
"""

_POLICIES = {"default": {}, "brief": {"GOMP_SPINCOUNT": "1000"}, "passive": {"OMP_WAIT_POLICY": "PASSIVE"}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=10, help="of the represent stage (default: 10)")
    parser.add_argument("--trainings", type=int, default=3, help="how many at a time (default: 3)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the JSON there, too")
    options = parser.parse_args()

    console.set_verbosity(console.Verbosity.QUIET)
    with tempfile.TemporaryDirectory(prefix="ltrec-threads-") as scratch:
        project = Path(scratch) / "project"
        _prepare(project, options.epochs)
        taken = {
            str(at_once): {policy: _slowest(project, policy, at_once) for policy in _POLICIES}
            for at_once in (1, options.trainings)
        }
    result = {
        "machine": machine(),
        "epochs": options.epochs,
        "seconds_by_trainings_at_once": taken,
        "default_over_brief": {name: round(of["default"] / of["brief"], 2) for name, of in taken.items()},
        "passive_over_brief": {name: round(of["passive"] / of["brief"], 2) for name, of in taken.items()},
    }
    text = json.dumps(result, indent=2) + "\n"
    if options.output:
        artifacts.write_text(options.output, text)
    sys.stdout.write(text)


def _prepare(project: Path, epochs: int) -> None:
    """A prepared project with few epochs and without MLflow."""
    project.mkdir()
    yaml = YAML()
    content = yaml.load(ROOT / "params.yaml")
    content["represent"]["epochs"] = epochs
    content["tracking"]["enabled"] = False
    yaml.dump(content, project / "params.yaml")
    write_digits(project / "data")
    with contextlib.chdir(project), contextlib.redirect_stdout(io.StringIO()):
        prepare.run(params.load(Path("params.yaml")))


def _slowest(project: Path, policy: str, at_once: int) -> float:
    """Seconds of the slowest of some trainings that run at the same time."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    env = kept | _POLICIES[policy]
    trainings = []
    for number in range(at_once):
        copy = project.parent / f"{policy}-{at_once}-{number}"
        shutil.copytree(project, copy)
        trainings.append(
            subprocess.Popen([sys.executable, "-c", _TRAIN], cwd=copy, env=env, stdout=subprocess.PIPE, text=True)
        )
    return round(max(float(training.communicate()[0]) for training in trainings), 2)


if __name__ == "__main__":
    main()
