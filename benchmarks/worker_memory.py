"""Memory of the processes that decode, by the length of the list that they read from.

Two worker processes are given paths in random order, once all of them; decoding is left out, since it takes memory
whatever the list. USS is what a process has for itself alone; a process that is started has the memory of the one that
started it, until it writes there.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from machine import ROOT, machine, run

from ltrec import artifacts
from ltrec.data.images.dataset import BatchLoader, ImageDataset
from ltrec.data.images.decoding import Geometry

WORKERS, BATCH = 2, 4096


class Paths(ImageDataset):
    """Reads an image's path and gives no pixels."""

    def __getitem__(self, item: tuple[int, int]) -> tuple[torch.Tensor, int]:
        file = self.root / self.paths[item[0]]
        return torch.empty(0, dtype=torch.uint8), len(str(file))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[10**4, 10**6, 10**7])
    parser.add_argument("--one", nargs=2, metavar=("KIND", "IMAGES"), help="measure in this process")
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(of_workers(asked.one[0], int(asked.one[1]))))
        return
    rows: dict[str, dict[str, Any]] = {}
    for images in asked.images:
        for kind in ("tuple", "ltrec"):
            command = [sys.executable, __file__, "--one", kind, str(images)]
            row = json.loads(run(command, ROOT).said.splitlines()[-1])
            rows.setdefault(str(images), {})[kind] = row
            print(f"{images:>12,} {kind:8} {row}", flush=True)
    about = {"machine": machine(), "workers": WORKERS}
    artifacts.write_json(ROOT / "benchmarks/results/worker_memory.json", about | {"rows": rows})


def of_workers(kind: str, images: int) -> dict[str, float]:
    """Megabytes that a worker has for itself at the first batches and after all, and the process that started it."""
    given = tuple(f"train/{n % 1000:04d}/ILSVRC2012_train_{n:08d}.JPEG" for n in range(images))
    dataset = Paths(Path("data"), given, Geometry(size=1, resize=1))
    if kind == "tuple":
        dataset.paths = given  # type: ignore[assignment]
    del given
    loader = BatchLoader(dataset, WORKERS)
    order = np.random.default_rng(0).permutation(images)
    parts = [slice(start, start + BATCH) for start in range(0, images, BATCH)]
    first = last = 0.0
    for number, _ in enumerate(loader.epoch(order, order, parts)):
        if number in (min(2, len(parts) - 1), len(parts) - 1):
            last = max(worker.memory_full_info().uss for worker in psutil.Process().children()) / 1e6
            first = first or last
    held = psutil.Process().memory_full_info().uss / 1e6
    return {"first": round(first, 1), "last": round(last, 1), "parent": round(held, 1)}


if __name__ == "__main__":
    main()
