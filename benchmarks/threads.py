"""Training beside a busy neighbour: OpenMP's threads spinning, as by default, or sleeping; prints JSON.

This is why `ltrec.process.share_cores` sets OMP_WAIT_POLICY. The represent stage trains some epochs on handwritten
digits, alone and beside a process that keeps one core busy.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from machine import ROOT, machine
from ruamel.yaml import YAML

from ltrec import artifacts, console, params
from ltrec.data.digits import write_digits
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=10, help="of the represent stage (default: 10)")
    parser.add_argument("--limit", type=float, default=120, help="seconds that one training may take (default: 120)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the JSON there, too")
    options = parser.parse_args()

    console.set_verbosity(console.Verbosity.QUIET)
    with tempfile.TemporaryDirectory(prefix="ltrec-threads-") as scratch:
        folder = Path(scratch)
        _project(folder, options.epochs)
        taken = {
            name: {
                policy: _train(folder, policy, options.limit, beside=beside) for policy in ("default", "passive")
            }
            for name, beside in (("alone", False), ("busy_neighbour", True))
        }  # fmt: skip
    result = {
        "machine": machine(),
        "epochs": options.epochs,
        "seconds": taken,
        "default_over_passive": {name: round(of["default"] / of["passive"], 2) for name, of in taken.items()},
    }
    text = json.dumps(result, indent=2) + "\n"
    if options.output:
        artifacts.write_text(options.output, text)
    sys.stdout.write(text)


def _project(folder: Path, epochs: int) -> None:
    """A prepared project with few epochs and without MLflow."""
    yaml = YAML()
    content = yaml.load(ROOT / "params.yaml")
    content["represent"]["epochs"] = epochs
    content["tracking"]["enabled"] = False
    yaml.dump(content, folder / "params.yaml")
    write_digits(folder / "data")
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()):
        prepare.run(params.load(Path("params.yaml")))


def _train(folder: Path, policy: str, limit: float, *, beside: bool) -> float:
    """Seconds of one training; `limit` if it takes longer."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
    env = kept | ({"OMP_WAIT_POLICY": "PASSIVE"} if policy == "passive" else {})
    with contextlib.ExitStack() as running:
        if beside:
            neighbour = running.enter_context(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
            running.callback(neighbour.kill)
            os.sched_setaffinity(neighbour.pid, {min(os.sched_getaffinity(0))})
        try:
            done = subprocess.run(
                [sys.executable, "-c", _TRAIN], cwd=folder, env=env, stdout=subprocess.PIPE, text=True, check=True,
                timeout=limit,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return limit
    return round(float(done.stdout), 2)


if __name__ == "__main__":
    main()
