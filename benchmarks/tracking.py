"""What recording for MLflow costs: the digits pipeline with `tracking.enabled` and without, in turns.

Each `dvc repro` begins in a fresh clone, with an empty cache and, as a user has it, MLflow's database in the project.
A table, and JSON.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from machine import ROOT, machine, run, spread
from pipeline import fresh_clone
from ruamel.yaml import YAML

from ltrec import artifacts

_MAX_SECONDS = 10.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3, help="pairs of pipelines (default: 3)")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", default=ROOT / "benchmarks/results/tracking.json",
        help="the JSON (default: benchmarks/results/tracking.json)",
    )  # fmt: skip
    options = parser.parse_args()

    result: dict[str, Any] = {"machine": machine(), "repeats": options.repeats}
    taken: dict[bool, list[float]] = {True: [], False: []}
    with tempfile.TemporaryDirectory(prefix="ltrec-tracking-") as scratch:
        for number in range(options.repeats):
            for enabled in (False, True):
                taken[enabled].append(pipeline(Path(scratch, f"{number}-{enabled}"), enabled=enabled))
    costs = [on - off for on, off in zip(taken[True], taken[False], strict=True)]
    ratios = [on / off for on, off in zip(taken[True], taken[False], strict=True)]
    result |= {"with": spread(taken[True]), "without": spread(taken[False])}
    result |= {"seconds for tracking": spread(costs), "ratio": spread(ratios)}
    cost = result["seconds for tracking"]["median"]
    result["target"] = {"reached": cost, "at_most": _MAX_SECONDS, "met": cost <= _MAX_SECONDS}
    print(f"for tracking {cost:.1f} s, ratio {result['ratio']['median']:.2f}", flush=True)
    artifacts.write_json(options.output, result)


def pipeline(clone: Path, *, enabled: bool) -> float:
    """Return the seconds of the first `dvc repro` in a fresh clone."""
    env = fresh_clone(clone)
    yaml, params = YAML(), clone / "params.yaml"
    content = yaml.load(params)
    content["tracking"]["enabled"] = enabled
    yaml.dump(content, params)
    run(["ltrec", "data", "digits"], clone, env)
    run(["ltrec", "params", "check"], clone, env)  # compiles modules
    seconds = run(["dvc", "repro", "--force"], clone, env).seconds
    print(f"{'with' if enabled else 'without':8} tracking {seconds:8.2f} s", flush=True)
    return seconds


if __name__ == "__main__":
    main()
