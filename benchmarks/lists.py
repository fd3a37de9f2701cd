"""Lists of 10^7 images: reading and splitting them, and starting an epoch over them; a table and JSON.

The references are the textbook's: a loop over the lines that splits each at its blanks, and torch's weighted sampler.
Each figure comes from a process of its own; memory is its peak, interpreter and imports included.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from statistics import median

import numpy as np
from machine import ROOT, machine, python, spread

from ltrec import artifacts

_PARAMS = """
prepare: {source: {kind: lists, root: data, train: train.txt, val: val.txt, test: test.txt}}
represent: {backbone: {name: cifar_resnet8}}
rebalance: {joint: {method: joint}}
"""
_PREPARE = """
import sys
from ltrec.cli import main
sys.argv = ["ltrec", "--quiet", "prepare", "--no-decode"]
main()
"""
_READ = """
paths, labels = [], []
with open("data/train.txt") as lines:
    for line in lines:
        paths.append(line.split()[0])
        labels.append(int(line.split()[1]))
"""
_LABELS = """
import sys, time
import numpy as np
labels = np.load("labels.npy")
"""
_EPOCH = """
from pydantic import TypeAdapter
from ltrec.data.images.dataset import _Order
from ltrec.data.images.device_loader import crop_seeds
from ltrec.training.samplers import SamplerSettings
sampler = TypeAdapter(SamplerSettings).validate_python({"name": sys.argv[1]}).build(labels, seed=0, epochs=2)
order = _Order()
begin = time.perf_counter()
indices = sampler.epoch(1)
order.images = indices, crop_seeds((0, 1), len(indices))
order.parts = [slice(start, start + 256) for start in range(0, len(indices), 256)]
next(iter(order))
print(time.perf_counter() - begin)
"""
_TORCH = """
from torch.utils.data import BatchSampler, WeightedRandomSampler
weights = (1 / np.bincount(labels))[labels]
begin = time.perf_counter()
next(iter(BatchSampler(WeightedRandomSampler(weights, len(labels)), 256, drop_last=True)))
print(time.perf_counter() - begin)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=10**7, help="training images (default: 10^7)")
    parser.add_argument("--classes", type=int, default=8142, help="of the long tail (default: iNaturalist's 8142)")
    parser.add_argument("--repeats", type=int, default=5, help="of each figure (default: 5)")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", default=ROOT / "benchmarks/results/lists.json",
        help="the JSON (default: benchmarks/results/lists.json)",
    )  # fmt: skip
    options = parser.parse_args()

    with tempfile.TemporaryDirectory(prefix="ltrec-lists-") as scratch:
        folder = Path(scratch)
        _write(folder, options.images, options.classes)
        rows = {}
        print(f"{options.images:,} images: {'median':>27} {'min':>10} {'max':>10} {'peak':>10}")
        for name, code, argument, inside in (
            ("prepare --no-decode", _PREPARE, "", False),
            ("a loop that only reads train", _READ, "", False),
            ("epoch, instance_balanced", _LABELS + _EPOCH, "instance_balanced", True),
            ("epoch, class_balanced", _LABELS + _EPOCH, "class_balanced", True),
            ("epoch, square_root", _LABELS + _EPOCH, "square_root", True),
            ("epoch, progressively_balanced", _LABELS + _EPOCH, "progressively_balanced", True),
            ("epoch, torch's weighted sampler", _LABELS + _TORCH, "", True),
        ):
            runs = [python(code, argument, folder=folder) for _ in range(options.repeats)]
            seconds = [json.loads(run.said) if inside else run.seconds for run in runs]
            peak = max(run.peak_mb for run in runs)
            rows[name] = {"seconds": spread(seconds), "peak_mb": peak}
            print(
                f"{name:32} {median(seconds):10.2f} s {min(seconds):8.2f} s {max(seconds):8.2f} s {peak:7d} MB",
                flush=True,
            )
    about = {"machine": machine(), "images": options.images, "classes": options.classes, "repeats": options.repeats}
    artifacts.write_json(options.output, about | {"rows": rows})


def _write(folder: Path, images: int, classes: int) -> None:
    """Lists of a long tail, n_j falling as a power of the class's rank; val and test with two of each class."""
    share = np.arange(1, classes + 1) ** -0.8
    counts = np.maximum(1, share / share.sum() * images).astype(np.int64)
    counts[0] += images - counts.sum()
    (folder / "data").mkdir()
    (folder / "params.yaml").write_text(_PARAMS)
    for split, each in (("train", counts), ("val", np.full(classes, 2)), ("test", np.full(classes, 2))):
        labels = np.repeat(np.arange(classes), each)
        np.random.default_rng(0).shuffle(labels)
        with (folder / "data" / f"{split}.txt").open("w") as lines:
            lines.writelines(f"{split}/{label:04d}/{n:08d}.jpg {label}\n" for n, label in enumerate(labels.tolist()))
        if split == "train":
            np.save(folder / "labels.npy", labels)


if __name__ == "__main__":
    main()
