"""CIFAR-10-LT (IF 100) at full length by ltrec's recipes, beside the published figures; prints tables and JSON.

The images are JPEG copies of CIFAR-10's (quality 75, colours at half the resolution), which costs accuracy against the
original arrays. Every choice is made on val; the published figures beside were mostly chosen on test.

Without a GPU, a recipe of 200 epochs takes hours. Each seed's project lies in `--folder` and is run by `ltrec run`
there, so that a second call goes on where the first was killed, within a training too. `--jobs 2` runs two at a time,
each on one thread and a core of its own: two threads of one training wait for each other at every layer. The JSON is
written after each result. What cRT on images would give, instead of on features, tells
`--set rebalance.crt_images="{method: crt, images: true, epochs: 10, batch_size: 128, lr: 0.1}"`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tarfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from machine import ROOT, machine
from pipeline import GROUPS
from ruamel.yaml import YAML

from ltrec import artifacts
from ltrec.config import recipes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_ARCHIVE = ROOT.parent / "shared" / "datasets" / "cifar10-jpeg.tar.xz"
_JUDGED = ("nll", "ece", "aurc")


@dataclass(frozen=True)
class Job:
    """One recipe with one seed, in a folder of its own."""

    recipe: str
    seed: int
    folder: Path

    @property
    def name(self) -> str:
        return f"{self.recipe}, seed {self.seed}"


def main() -> None:
    options = _options()
    options.folder = options.folder.resolve()
    options.folder.mkdir(parents=True, exist_ok=True)
    data = options.folder / "data"
    if not data.is_dir():
        print(f"unpacking {options.images}", file=sys.stderr)
        unpacked = options.folder / "data.part"
        with tarfile.open(options.images) as archive:
            archive.extractall(unpacked, filter="data")
        unpacked.rename(data)
    shortened = f"-{options.epochs}-epochs" if options.epochs else ""
    jobs = [
        Job(recipe, seed, options.folder / f"{recipe}{shortened}-{seed}")
        for seed in options.seeds
        for recipe in options.recipes
    ]
    for job in jobs:
        _lay_out(job, data, options)
    cores = _Cores(options.jobs)
    found: dict[str, Any] = {}
    failed = []
    with ThreadPoolExecutor(options.jobs) as pool:
        for done in as_completed([pool.submit(_run, job, cores) for job in jobs]):
            job, result = done.result()
            if result is None:
                failed.append(job)
                continue
            found.setdefault(job.recipe, {})[str(job.seed)] = result
            text = _summary(found, options)
            if options.output:  # after each: the next takes long
                artifacts.write_text(options.output, text)
            _show(job, result)
    if found:
        sys.stdout.write(text)
    if failed:
        raise SystemExit("\n".join(f"{job.name}: failed; see {job.folder / 'log.txt'}" for job in failed))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, default=_ARCHIVE, metavar="ARCHIVE", help="of CIFAR-10 as image files")
    parser.add_argument("--folder", type=Path, default=ROOT / ".ltrec" / "cifar10-lt", help="where the projects lie")
    parser.add_argument(
        "--recipes", nargs="+", default=["published", "strong"], choices=["published", "strong"],
        help="which recipes (default: both)",
    )  # fmt: skip
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="which seeds (default: 0)")
    parser.add_argument(
        "--jobs", type=int, default=1, help="how many at a time, each on a core of its own (default: 1)"
    )
    parser.add_argument("--epochs", type=int, help="of the representation, in place of the recipe's 200")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="NAME=VALUE", help="other parameters, such as represent.precision=bf16"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the JSON there, too")
    options = parser.parse_args()
    if not options.images.is_file() and not (options.folder / "data").is_dir():
        parser.error(f"{options.images}: no such file; it must hold train/<class>/ and test/<class>/")
    return options


def _lay_out(job: Job, data: Path, options: argparse.Namespace) -> None:
    """Write a job's parameters; what they have in common with an earlier call's is not trained again."""
    job.folder.mkdir(exist_ok=True)
    if not (job.folder / "data").exists():
        (job.folder / "data").symlink_to(data)
    yaml = YAML()
    choice = {"imbalance_factor": "100"} | ({"strong": "yes"} if job.recipe == "strong" else {})
    content = yaml.load(recipes.find("cifar10-lt").text(choice))
    content["seed"] = job.seed
    content["tracking"] = {"enabled": False}
    if options.epochs:
        content["represent"]["epochs"] = options.epochs
    for name, _, value in (setting.partition("=") for setting in options.set):
        *sections, last = name.split(".")
        section = content
        for part in sections:
            section = section.setdefault(part, {})
        section[last] = yaml.load(value)
    with (job.folder / "params.yaml").open("w", encoding="utf-8") as file:
        yaml.dump(content, file)


class _Cores:
    """Lends each job a core of its own where several run at a time."""

    def __init__(self, jobs: int) -> None:
        allowed = sorted(os.sched_getaffinity(0))
        if jobs > len(allowed):
            raise SystemExit(f"--jobs {jobs}: there are {len(allowed)} cores")
        self._free = [{core} for core in allowed[:jobs]] if jobs > 1 else [set(allowed)]
        self._lock = threading.Lock()

    def take(self) -> set[int]:
        with self._lock:
            return self._free.pop()

    def give(self, cores: set[int]) -> None:
        with self._lock:
            self._free.append(cores)


def _run(job: Job, cores: _Cores) -> tuple[Job, dict[str, Any] | None]:
    """Run a job's pipeline, or what is missing of it; there is no result where it fails."""
    mine = cores.take()
    threads = {"OMP_NUM_THREADS": "1"} if len(mine) == 1 else {}
    start = time.perf_counter()
    with (job.folder / "log.txt").open("a", encoding="utf-8") as log:
        print(f"{job.name}: runs on core {', '.join(map(str, sorted(mine)))}; see {log.name}", file=sys.stderr)
        os.sched_setaffinity(0, mine)  # of this thread, and of what it starts
        command = [sys.executable, "-m", "ltrec", "run"]
        code = subprocess.run(
            command, cwd=job.folder, env=os.environ | threads, stdout=log, stderr=log, check=False
        ).returncode
    cores.give(mine)
    if code:
        return job, None
    figures = artifacts.read_json(job.folder / "artifacts/evaluate/metrics.json")
    history = artifacts.read_csv(job.folder / "artifacts/represent/history.csv")
    variants = YAML(typ="safe").load(job.folder / "params.yaml")["rebalance"]
    return job, {
        "epochs": len(history),
        "training_loss": float(history[-1]["loss"]),
        "seconds_of_this_call": round(time.perf_counter() - start),
        "champion": figures["champion"],
        "variants": {
            name: {key: figures[name].get(key) for key in (*GROUPS, *_JUDGED)}
            | {"val": artifacts.read_json(job.folder / f"artifacts/rebalance/{name}/metrics.json")["val"]["balanced"]}
            for name in variants
        },
    }


def _summary(found: Mapping[str, Mapping[str, Any]], options: argparse.Namespace) -> str:
    """Return the JSON: every result, and each variant's mean over the seeds beside what is published."""
    published = recipes.find("cifar10-lt").aims[0].figures
    means = {
        recipe: {
            name: _over_seeds([of["variants"][name]["all"] for of in seeds.values()])
            | ({"published": published[name] / 100} if name in published and recipe == "published" else {})
            for name in next(iter(seeds.values()))["variants"]
        }
        | {"champion": _over_seeds([of["variants"][of["champion"]]["all"] for of in seeds.values()])}
        for recipe, seeds in found.items()
    }
    content = {
        "machine": machine(),
        "images": "JPEG copies of CIFAR-10 (quality 75, 4:2:0)",
        "settings": options.set,
        "jobs": options.jobs,
        "per_seed": found,
        "all": means,
    }
    return json.dumps(content, indent=2) + "\n"


def _over_seeds(values: Sequence[float]) -> dict[str, float]:
    return {"mean": round(fmean(values), 4)} | ({"deviation": round(stdev(values), 4)} if len(values) > 1 else {})


def _show(job: Job, result: Mapping[str, Any]) -> None:
    published = recipes.find("cifar10-lt").aims[0].figures if job.recipe == "published" else {}
    print(f"{job.name}: {result['epochs']} epochs, training loss {result['training_loss']:.3f}", file=sys.stderr)
    for name, figures in result["variants"].items():
        crown = "★" if name == result["champion"] else " "
        beside = f"   published {published[name]:.1f}" if name in published else ""
        print(
            f"  {crown} {name:18s} all {100 * figures['all']:5.1f}  val {100 * figures['val']:5.1f}{beside}",
            file=sys.stderr,
        )


if __name__ == "__main__":
    main()
