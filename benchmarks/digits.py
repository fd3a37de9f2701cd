"""What ltrec reaches on handwritten digits; prints JSON.

Quality: the stages of the checkout's `params.yaml` for some seeds, each in a folder of its own. Repeatability: the
first seed twice, and once more through `dvc repro` in a fresh clone, byte for byte.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from pathlib import Path
from statistics import fmean
from typing import Any

from machine import ROOT, machine, run
from pipeline import GROUPS, fresh_clone, run_stages

from ltrec import artifacts, console, process
from ltrec.config import params
from ltrec.data.downloads.digits import write_digits

Figures = dict[str, Any]

_MIN_FEW_GAIN = {"ncm": 0.20, "crt": 0.20, "lws": 0.15, "tau_norm": 0.08}
_MIN_CHAMPION = 0.92


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5, help="seeds 0 … N-1 (default: 5)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the JSON there, too")
    options = parser.parse_args()

    process.share_cores()
    console.set_verbosity(console.Verbosity.QUIET)
    result: Figures = {"machine": machine()}
    with tempfile.TemporaryDirectory(prefix="ltrec-digits-") as scratch:
        folder = Path(scratch)
        result |= quality(folder, options.seeds)
        result["repeatable"]["through_dvc"] = through_dvc(folder / "clone") == _digests(folder / "seed-0")
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


def through_dvc(clone: Path) -> dict[str, str]:
    """What `dvc repro` makes in a fresh clone."""
    env = fresh_clone(clone)
    for command in (("ltrec", "data", "digits"), ("dvc", "repro")):
        run(command, clone, env)
    return _digests(clone)


def targets(result: Figures) -> Figures:
    """Each target beside what was reached."""
    rows = {
        f"few of {name} above joint": (result["few_gain"][name], least) for name, least in _MIN_FEW_GAIN.items()
    } | {"all of the champion": (result["champion_all"], _MIN_CHAMPION)}
    return {
        name: {"reached": round(value, 4), "at_least": least, "met": value >= least}
        for name, (value, least) in rows.items()
    }


if __name__ == "__main__":
    main()
