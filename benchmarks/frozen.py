"""A frozen ImageNet network on CIFAR-10-LT (IF 100): every method beside joint, and what no training costs.

EfficientNet-Lite0 stays as it was trained on ImageNet (`represent.epochs: 0`), at 224 px; the joint classifier is
fitted on its features. The images are a subset of CIFAR-10's JPEG copies, so that two cores that have other work, too,
need a quarter of an hour: 1,000 training images of the largest class, 10 of the rarest, two views of each, 20 of every
class to choose on and 50 to test on.

Beside `represent` and `featurize`, without the interpreter's start and imports, stand bare forward passes of as many
images that lie decoded in memory: half of them before, half after, since other work may come and go on the machine.
Each figure is written as soon as it is there, and what is there is not measured again: a run that was killed goes on.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import json
import os
import re
import sys
import tarfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from machine import ROOT, machine
from pipeline import GROUPS

from ltrec import artifacts, console, process
from ltrec.compute import precision
from ltrec.config import params
from ltrec.data.image_lists import read_list
from ltrec.models import network as networks
from ltrec.stages import evaluate, featurize, prepare, rebalance, represent

if TYPE_CHECKING:
    from collections.abc import Callable

    from ltrec.config.params import Params

_ARCHIVE = ROOT.parent / "shared" / "datasets" / "cifar10-jpeg.tar.xz"
_BACKBONE = "timm/tf_efficientnet_lite0.in1k"
_SIZE, _VIEWS, _VAL = 224, 1, 20
_MEMBER = re.compile(r"(?:.*/)?(?P<split>train|test)/(?P<label>[^/]+)/[^/]+$")
_TRAINED = {"epochs": 20, "lr": 0.1, "more_lrs": [0.01, 0.03, 0.3]}
_VARIANTS: dict[str, dict[str, Any]] = {
    "joint": {}, "ncm": {}, "tau_norm": {}, "learnable_tau": {}, "crt": _TRAINED,
    "lws": _TRAINED | {"weight_decay": 0.0},
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path, metavar="FILE", help="of the backbone, as safetensors")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="to work in; a killed run goes on from there")
    parser.add_argument("--backbone", default=_BACKBONE, metavar="NAME", help=f"default: {_BACKBONE}")
    parser.add_argument("--images", type=Path, default=_ARCHIVE, metavar="ARCHIVE", help="of CIFAR-10 as image files")
    parser.add_argument("--most", type=int, default=1000, metavar="N", help="of the largest class (default: 1000)")
    parser.add_argument("--test", type=int, default=50, metavar="N", help="test images of each class (default: 50)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the JSON there, too")
    options = parser.parse_args()
    for file in (options.weights, options.images):
        if not file.is_file():
            parser.error(f"{file}: no such file")

    process.share_cores()
    console.set_verbosity(console.Verbosity.QUIET)
    settings = _settings(options.backbone, options.weights.resolve(), options.most)
    about = {
        "images": "JPEG copies of CIFAR-10 (lossy)", "backbone": options.backbone, "size": _SIZE,
        "weights_sha256": settings.represent.backbone.digest(), "views": 1 + _VIEWS,
        "largest_class": options.most, "imbalance_factor": 100, "val_a_class": _VAL, "test_a_class": options.test,
    }  # fmt: skip
    folder = options.folder.resolve()
    results = Results(folder / "result.json", options.output and options.output.resolve(), about)
    if not (folder / "data").is_dir():
        _extract(options.images, folder, {"train": options.most + _VAL, "test": options.test})
    (folder / "params.yaml").touch()  # marks the project's root
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()), precision.exact_float32():
        _run(settings, results)
    _show(results.content)
    sys.stdout.write(json.dumps(results.content, indent=2) + "\n")


class Results:
    """What is known so far, in a file after each figure; figures of another subset or network are begun anew."""

    def __init__(self, file: Path, copy: Path | None, about: dict[str, Any]) -> None:
        self._files = [file, *([copy] if copy else [])]
        before = artifacts.read_json(file) if file.is_file() else {}
        same = {key: before.get(key) for key in about} == about
        self.content: dict[str, Any] = before if same else {"machine": machine()} | about

    def once(self, name: str, measure: Callable[[], Any]) -> Any:
        """Return a figure, measured and written unless it is there."""
        if name not in self.content:
            self.set(name, measure())
        return self.content[name]

    def set(self, name: str, figure: Any) -> None:
        self.content[name] = figure
        for file in self._files:
            artifacts.write_json(file, self.content)


def _settings(backbone: str, weights: Path, most: int) -> Params:
    return params.Params.model_validate(
        {
            "prepare": {
                "split": {"val": _VAL},
                "long_tail": {"profile": "exponential", "imbalance_factor": 100.0, "n_max": most},
            },
            "represent": {
                "backbone": {"name": backbone, "weights": str(weights)},
                "image": {"size": _SIZE, "resize": _SIZE, "interpolation": "bicubic"},
                "augment": {"crop": {"name": "resized", "area": (0.25, 1.0)}, "flip": True},
                "epochs": 0,
            },
            "featurize": {"views": _VIEWS},
            "rebalance": {name: {"method": name} | more for name, more in _VARIANTS.items()},
            "tracking": {"enabled": False},
        }
    )


def _extract(archive: Path, folder: Path, wanted: dict[str, int]) -> None:
    """Unpack the first so many images of each class and split; the folder is there when all are."""
    taken: dict[tuple[str, str], int] = {}
    unpacked = folder / "unpacked"
    with tarfile.open(archive) as packed:
        for member in packed:
            found = _MEMBER.fullmatch(member.name)
            if found is None or not member.isfile():
                continue
            group = (found["split"], found["label"])
            taken[group] = taken.get(group, 0) + 1
            if taken[group] <= wanted[found["split"]]:
                member.name = "/".join((*group, Path(member.name).name))
                packed.extract(member, unpacked, filter="data")
    unpacked.rename(folder / "data")


def _run(settings: Params, results: Results) -> None:
    layout = artifacts.Layout()
    if not layout.stats.is_file():
        prepare.run(settings)
    _import_all(settings)
    represented = results.once("represent", lambda: _taken(lambda: represent.run(settings)))
    batches = _batches(settings)
    results.set("passes", sum(batches))
    half = len(batches) // 2
    before = results.once("bare_before", lambda: _bare(batches[:half]))
    featurized = results.once("featurize", lambda: _taken(lambda: featurize.run(settings)))
    after = results.once("bare_after", lambda: _bare(batches[half:]))
    ratio = {
        clock: round((represented[clock] + featurized[clock]) / (before[clock] + after[clock]), 3)
        for clock in ("wall_seconds", "processor_seconds")
    }
    results.set("represent_and_featurize_over_bare_passes", ratio)
    for variant in settings.rebalance:
        fit = functools.partial(rebalance.run, settings, variant)
        results.once(f"rebalance {variant}", functools.partial(_taken, fit))
    if "accuracy" not in results.content:
        evaluate.run(settings)
        found = artifacts.read_json(layout.evaluation_metrics)
        accuracy = {name: {group: found[name][group] for group in (*GROUPS, "balanced")} for name in settings.rebalance}
        results.set("accuracy", accuracy)
        results.set("champion", found["champion"])


def _import_all(settings: Params) -> None:
    """Import what the stages import when they first need it: timm, and the compiler that PyTorch's optimizers bring."""
    backbone = settings.represent.backbone.build(_SIZE, pretrained=False)
    settings.represent.optimizer.build(backbone, torch.nn.Identity())


def _batches(settings: Params) -> list[int]:
    """Return the sizes of the batches that `featurize` sends through the network."""
    size, layout = settings.featurize.batch_size, artifacts.Layout()
    found: list[int] = []
    for split in artifacts.SPLITS:
        count = len(read_list(layout.split_list(split), 10))
        views = 1 + (settings.featurize.views if split == "train" else 0)
        found += views * [min(size, count - start) for start in range(0, count, size)]
    return found


def _bare(batches: list[int]) -> dict[str, float]:
    """Return the time of the network's forward passes of batches that are decoded already."""
    network = networks.on_device(networks.load(artifacts.Layout().model), torch.device("cpu"))
    images = torch.randint(0, 256, (max(batches), _SIZE, _SIZE, 3), dtype=torch.uint8)
    networks.predict_features(network, images[:2])  # the first pass sets things up

    def passes() -> None:
        for count in batches:
            networks.predict_features(network, images[:count])

    return _taken(passes)


def _taken(work: Callable[[], Any]) -> dict[str, float]:
    """Return the seconds that work takes, on the wall and of all cores, its child processes included."""
    start, began = time.perf_counter(), sum(os.times()[:4])
    work()
    return {
        "wall_seconds": round(time.perf_counter() - start, 2),
        "processor_seconds": round(sum(os.times()[:4]) - began, 2),
    }


def _show(result: dict[str, Any]) -> None:
    ratio = result["represent_and_featurize_over_bare_passes"]
    print(
        f"{result['passes']} passes; represent and featurize over bare passes: {ratio['wall_seconds']:.2f} on the wall,"
        f" {ratio['processor_seconds']:.2f} of processor time",
        file=sys.stderr,
    )
    for name, figures in result["accuracy"].items():
        shown = "  ".join(f"{group} {100 * value:5.1f}" for group, value in figures.items() if value is not None)
        print(f"{name:14s} {shown}", file=sys.stderr)


if __name__ == "__main__":
    main()
