"""Draws of every sampler: seconds for 10^6, peak memory at 10^7 images, beside torch's; a table and JSON.

The reference draws from one weight an image, as torch's WeightedRandomSampler does: the expected share of each class
is the same, but within a class images come with replacement. Each figure comes from a process of its own.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import median
from typing import Any

from machine import ROOT, machine, python, spread

from ltrec import artifacts

_SAMPLERS: dict[str, dict[str, Any] | None] = {
    "instance_balanced": {"name": "instance_balanced"},
    "class_balanced": {"name": "class_balanced"},
    "square_root": {"name": "square_root"},
    "power q=0.2": {"name": "power", "q": 0.2},
    "progressively_balanced": {"name": "progressively_balanced"},
    "torch, one weight an image": None,
}

# Labels of a long tail: n_j falls as a power of the class's rank, 1 image at least.
_LABELS = """
import json, sys, time
import numpy as np
images, classes, repeats, settings = json.loads(sys.argv[1])
share = np.arange(1, classes + 1) ** -0.8
counts = np.maximum(1, share / share.sum() * images).astype(np.int64)
counts[0] += images - counts.sum()
labels = np.repeat(np.arange(classes), counts)
seconds = []
"""
_OURS = """
from pydantic import TypeAdapter
from ltrec.training.samplers import SamplerSettings
sampler = TypeAdapter(SamplerSettings).validate_python(settings).build(labels, seed=0, epochs=repeats)
for epoch in range(repeats):
    start = time.perf_counter()
    sampler.epoch(epoch)
    seconds.append(time.perf_counter() - start)
"""
_TORCH = """
import torch
from torch.utils.data import WeightedRandomSampler
weights = (1 / counts)[labels]
for epoch in range(repeats):
    start = time.perf_counter()
    sum(1 for _ in WeightedRandomSampler(weights, len(labels)))
    seconds.append(time.perf_counter() - start)
"""
_SAID = """
print(json.dumps(seconds))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", type=int, default=8142, help="of the long tail (default: iNaturalist's 8142)")
    parser.add_argument("--repeats", type=int, default=5, help="epochs (default: 5)")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", default=ROOT / "benchmarks/results/samplers.json",
        help="the JSON (default: benchmarks/results/samplers.json)",
    )  # fmt: skip
    options = parser.parse_args()

    rows = {}
    print(f"{'sampler':28} {'10^6 draws: median, min, max':>30} {'10^7 draws':>12} {'10^7 images: peak':>18}")
    for name, settings in _SAMPLERS.items():
        million, _ = _epochs(10**6, options.classes, options.repeats, settings)
        ten_million, peak_mb = _epochs(10**7, options.classes, options.repeats, settings)
        rows[name] = {
            "seconds": spread(million),
            "ten_million_seconds": spread(ten_million),
            "ten_million_peak_mb": peak_mb,
        }
        print(
            f"{name:28} {median(million):12.3f} s {min(million):6.3f} s {max(million):6.3f} s"
            f" {median(ten_million):10.2f} s {peak_mb:15d} MB",
            flush=True,
        )
    result = {"machine": machine(), "classes": options.classes, "repeats": options.repeats, "samplers": rows}
    artifacts.write_json(options.output, result)


def _epochs(images: int, classes: int, repeats: int, settings: dict[str, Any] | None) -> tuple[list[float], int]:
    """Seconds of each epoch, and peak memory in MB of a process that only draws; labels and imports included."""
    code = _LABELS + (_TORCH if settings is None else _OURS) + _SAID
    process = python(code, json.dumps([images, classes, repeats, settings]))
    return json.loads(process.said), process.peak_mb


if __name__ == "__main__":
    main()
