"""How long it takes until ltrec works: commands, each stage's start part by part, and the digits pipeline.

Everything runs in fresh clones with MLflow as a user has it. For the parts, the trainings are cut to one epoch and
the variants to two; the pipeline is that of `params.yaml`, from an empty cache. A table, and JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from machine import ROOT, machine, run, seconds, spread
from pipeline import fresh_clone
from ruamel.yaml import YAML

from ltrec import artifacts

_STAGES = ("prepare", "represent", "featurize", "rebalance joint", "rebalance crt", "evaluate", "export")
_REPRO = ("dvc", "repro")
_MAX_SECONDS = {"ltrec --help": 0.3, "dvc repro, nothing to do": 1.5, "digits, end to end": 60.0}
_MAX_START = 4.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5, help="of each figure (default: 5)")
    parser.add_argument("--pipelines", type=int, default=3, help="runs of the whole pipeline (default: 3)")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", default=ROOT / "benchmarks/results/startup.json",
        help="the JSON (default: benchmarks/results/startup.json)",
    )  # fmt: skip
    options = parser.parse_args()

    result: dict[str, Any] = {"machine": machine(), "repeats": options.repeats, "pipelines": options.pipelines}
    with tempfile.TemporaryDirectory(prefix="ltrec-startup-") as scratch:
        folder = Path(scratch)
        result["commands"] = commands(folder / "commands", options.repeats)
        result["stages"] = stages(folder / "stages", options.repeats)
        result["pipeline"] = pipeline(folder, options.pipelines, options.repeats)
    result["targets"] = _targets(result)
    artifacts.write_json(options.output, result)


def commands(clone: Path, repeats: int) -> dict[str, Any]:
    """Wall times of what ends before any stage begins."""
    env = fresh_clone(clone)
    wrong = clone / "wrong.yaml"
    wrong.write_text((clone / "params.yaml").read_text(encoding="utf-8") + "unknown: 1\n", encoding="utf-8")
    taken = {}
    for name, command, code in (
        ("python -c pass", (sys.executable, "-c", "pass"), 0),
        ("ltrec --help", ("ltrec", "--help"), 0),
        ("a usage error", ("ltrec", "represent", "--unknown"), 2),
        ("a params error", ("ltrec", "--params", wrong.name, "represent"), 2),
    ):
        taken[name] = seconds(command, clone, env, code=code, times=repeats)
        _show(name, taken[name])
    return taken


def stages(clone: Path, repeats: int) -> dict[str, Any]:
    """Seconds of the parts of each stage's process; its start is all but its work, the wait for MLflow included."""
    env = fresh_clone(clone)
    _cut_down(clone / "params.yaml")
    run(["ltrec", "data", "digits"], clone, env)
    for stage in _STAGES:  # what the next ones read; compiles modules, too
        run(["ltrec", *stage.split()], clone, env)
    found: dict[str, dict[str, Any]] = {}
    for stage in _STAGES:
        runs = [_parts(stage, clone, env) for _ in range(repeats)]
        starts = [sum(taken for part, taken in parts.items() if part != "work") for parts in runs]
        names = sorted({name for parts in runs for name in parts})
        parts = {name: spread([parts.get(name, 0.0) for parts in runs]) for name in names}
        found[stage] = {"start": spread(starts), "parts": parts}
        _show(f"{stage}: start", found[stage]["start"])
        for name, of in parts.items():
            _show(f"    {name}", of)
    return found


def pipeline(folder: Path, pipelines: int, repeats: int) -> dict[str, Any]:
    """From a clone without data to the exported model, processor time too; and once more with nothing to do."""
    walls, processors = [], []
    for number in range(pipelines):
        clone = folder / f"pipeline-{number}"
        env = fresh_clone(clone)
        parts = [run(command, clone, env) for command in (("ltrec", "data", "digits"), _REPRO)]
        walls.append(sum(part.seconds for part in parts))
        processors.append(sum(part.processor_seconds for part in parts))
        print(f"{'digits, end to end':32} {walls[-1]:8.2f} s, of processors {processors[-1]:8.2f} s", flush=True)
    nothing = seconds(_REPRO, clone, env, times=repeats)
    _show("dvc repro, nothing to do", nothing)
    return {
        "digits, end to end": spread(walls),
        "digits, processor seconds": spread(processors),
        "dvc repro, nothing to do": nothing,
    }


def _parts(stage: str, clone: Path, env: dict[str, str]) -> dict[str, float]:
    program = ROOT / "benchmarks/stage_parts.py"
    said = run([sys.executable, program, str(time.time()), "--quiet", *stage.split()], clone, env).said
    parts: dict[str, float] = json.loads(said.splitlines()[-1])
    return parts


def _cut_down(params: Path) -> None:
    yaml = YAML()
    content = yaml.load(params)
    content["represent"]["epochs"] = 1
    content["rebalance"] = {name: content["rebalance"][name] for name in ("joint", "crt")}
    content["rebalance"]["crt"]["epochs"] = 1
    yaml.dump(content, params)


def _show(name: str, of: dict[str, Any]) -> None:
    print(f"{name:32} {of['median']:8.3f} s {of['min']:8.3f} s {of['max']:8.3f} s", flush=True)


def _targets(result: dict[str, Any]) -> dict[str, Any]:
    """Each target beside what was reached, by the median."""
    reached = {name: of["median"] for name, of in (result["commands"] | result["pipeline"]).items()}
    rows = {name: (reached[name], most) for name, most in _MAX_SECONDS.items()} | {
        f"start of {stage}": (of["start"]["median"], _MAX_START) for stage, of in result["stages"].items()
    }
    return {name: {"reached": value, "at_most": most, "met": value <= most} for name, (value, most) in rows.items()}


if __name__ == "__main__":
    main()
