"""What ltrec reaches on handwritten digits, and how long it takes; prints JSON.

Quality: the stages of the checkout's `params.yaml` for some seeds, each in a folder of its own. Repeatability: the
first seed twice, and once more through `dvc repro`, byte for byte. Timings: commands in a fresh clone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import fmean
from typing import Any

from machine import ROOT, machine, seconds
from pipeline import GROUPS, run_stages

from ltrec import artifacts, console, params, process
from ltrec.data.digits import write_digits

Figures = dict[str, Any]

_MIN_FEW_GAIN = {"ncm": 0.20, "crt": 0.20, "lws": 0.15, "tau_norm": 0.08}
_MIN_CHAMPION = 0.92
_MAX_SECONDS = {"pipeline": 90.0, "help": 0.5, "usage_error": 0.5, "noop_repro": 2.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5, help="seeds 0 … N-1 (default: 5)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the JSON there, too")
    parser.add_argument("--no-timings", action="store_true", help="quality and repeatability only")
    options = parser.parse_args()

    process.share_cores()
    console.set_verbosity(console.Verbosity.QUIET)
    result: Figures = {"machine": machine()}
    with tempfile.TemporaryDirectory(prefix="ltrec-digits-") as scratch:
        folder = Path(scratch)
        result |= quality(folder, options.seeds)
        if not options.no_timings:
            result["seconds"] = timings(folder / "clone")
            result["repeatable"]["through_dvc"] = _digests(folder / "clone") == _digests(folder / "seed-0")
    result["targets"] = targets(result)
    text = json.dumps(result, indent=2) + "\n"
    if options.output:
        artifacts.write_text(options.output, text)
    sys.stdout.write(text)


def quality(folder: Path, seeds: int) -> Figures:
    """Test accuracy of every variant for every seed; the first seed a second time for its bytes."""
    write_digits(folder / "data")
    settings = params.load(ROOT / "params.yaml")
    per_seed = {}
    for seed in range(seeds):
        per_seed[str(seed)] = run_stages(folder / f"seed-{seed}", folder / "data", settings, seed=seed)
        print(f"seed {seed}: {per_seed[str(seed)]['champion']}", file=sys.stderr)
    run_stages(folder / "again", folder / "data", settings, seed=0)
    variants = [name for name in per_seed["0"] if name != "champion"]
    mean = {name: {group: fmean(of[name][group] for of in per_seed.values()) for group in GROUPS} for name in variants}
    return {
        "per_seed": per_seed,
        "mean": mean,
        "few_gain": {name: mean[name]["few"] - mean["joint"]["few"] for name in variants if name != "joint"},
        "champion_all": fmean(of[of["champion"]]["all"] for of in per_seed.values()),
        "repeatable": {"same_process": _digests(folder / "again") == _digests(folder / "seed-0")},
    }


def _digests(folder: Path) -> dict[str, str]:
    """SHA-256 of the model, the features and every head."""
    files = sorted((folder / "artifacts").rglob("*.safetensors"))
    assert files, f"{folder} holds no artifacts"
    return {file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def timings(clone: Path) -> Figures:
    """Wall times of commands in a fresh clone; MLflow records there as it does for a user."""
    subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
    bin_folder = Path(sys.executable).parent
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DVC_", "MLFLOW_", "OMP_"))}
    env = kept | {"PATH": f"{bin_folder}:{os.environ['PATH']}", "PYTHONPATH": str(clone)}
    ltrec, dvc = bin_folder / "ltrec", bin_folder / "dvc"
    wrong = clone / "wrong.yaml"
    wrong.write_text((clone / "params.yaml").read_text(encoding="utf-8") + "unknown: 1\n", encoding="utf-8")

    seconds([ltrec, "--version"], clone, env)  # compiles the clone's modules
    found = {
        "data": seconds([ltrec, "data", "digits"], clone, env),
        "repro": seconds([dvc, "repro"], clone, env),
        "noop_repro": seconds([dvc, "repro"], clone, env, times=5),
        "help": seconds([ltrec, "--help"], clone, env, times=5),
        "usage_error": seconds([ltrec, "represent", "--unknown"], clone, env, code=2, times=5),
        "params_error": seconds([ltrec, "--params", wrong.name, "represent"], clone, env, code=2, times=5),
    }
    whole = round(found["data"]["median"] + found["repro"]["median"], 3)
    return found | {"pipeline": {"median": whole, "runs": [whole]}}


def targets(result: Figures) -> Figures:
    """Each target beside what was reached."""
    rows = {
        f"few of {name} above joint": (result["few_gain"][name], least) for name, least in _MIN_FEW_GAIN.items()
    } | {"all of the champion": (result["champion_all"], _MIN_CHAMPION)}
    checked = {
        name: {"reached": round(value, 4), "at_least": least, "met": value >= least}
        for name, (value, least) in rows.items()
    }
    for name, most in _MAX_SECONDS.items() if "seconds" in result else ():
        value = result["seconds"][name]["median"]
        checked[f"seconds of {name}"] = {"reached": value, "at_most": most, "met": value <= most}
    return checked


if __name__ == "__main__":
    main()
