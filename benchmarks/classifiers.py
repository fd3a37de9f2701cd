"""Everything after `featurize`, at full size on synthetic features: how far from the bare matrix products?

Six NCM variants, 21 values of τ, LWS for 5 epochs, cRT for 10, joint, and each one's figures on train, val and test,
through the package's own stages' functions. Beside it the bare products that these need, from memory, in the same
precision and the same batches, and the textbook's ways of τ's grid and of class means. Peak memory is what the process
holds beside the memory-mapped banks.

    python benchmarks/classifiers.py [--size small|imagenet-lt|inat] [--device cpu|cuda]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from machine import machine

from ltrec import device as devices
from ltrec import features, heads, metrics
from ltrec.features import FeatureBank
from ltrec.rebalancers.crt import CrtSettings
from ltrec.rebalancers.joint import JointSettings
from ltrec.rebalancers.lws import LwsSettings
from ltrec.rebalancers.ncm import NcmSettings
from ltrec.rebalancers.tau_norm import TauNormSettings
from ltrec.stages import evaluate, rebalance

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

RESULTS = Path(__file__).parent / "results"
BATCH = 512


@dataclass(frozen=True)
class Size:
    """Images of the splits, classes, dimensions; the counts fall from `most` to `least` a class."""

    train: int
    val: int
    test: int
    classes: int
    dim: int
    most: int
    least: int
    rounds: int


SIZES = {
    "small": Size(29_000, 5_000, 12_500, 250, 2048, 1280, 5, 3),
    "imagenet-lt": Size(115_846, 20_000, 50_000, 1000, 2048, 1280, 5, 3),
    "inat": Size(437_513, 24_426, 24_426, 8142, 2048, 1000, 2, 1),
}


def counts_of(size: Size) -> np.ndarray[Any, Any]:
    """A Pareto-like fall that adds up to the number of training images."""
    ranks = np.linspace(0, 1, size.classes)
    low, high = 0.01, 50.0
    for _ in range(60):
        steep = (low + high) / 2
        counts = size.least + (size.most - size.least) * (1 - ranks) ** steep
        low, high = (steep, high) if counts.sum() > size.train else (low, steep)
    found = np.maximum(counts.astype(int), size.least)
    found[0] += size.train - found.sum()
    return found


def write_banks(folder: Path, size: Size) -> tuple[dict[str, Path], heads.LinearHead]:
    """Rectified Gaussian clusters, and a joint head whose norms fall with the classes' counts."""
    random = np.random.default_rng(0)
    means = random.normal(size=(size.classes, size.dim), scale=0.12).astype(np.float32)
    counts = counts_of(size)
    labels = {"train": np.repeat(np.arange(size.classes), counts)}
    for split, number in (("val", size.val), ("test", size.test)):
        labels[split] = np.arange(number) % size.classes
    files = {}
    for split, of_split in labels.items():
        files[split] = folder / f"{split}.safetensors"
        with features.writing(files[split], of_split, views=1, dim=size.dim, header={"representation": ""}) as bank:
            for start in range(0, len(of_split), 4096):
                rows = slice(start, min(start + 4096, len(of_split)))
                noise = random.standard_normal((rows.stop - start, size.dim), dtype=np.float32)
                np.maximum(means[of_split[rows]] + noise, 0, out=bank[0, rows])
    weight = torch.from_numpy(means * (counts[:, None] / counts.mean()) ** 0.3 / 4).float()
    return files, heads.LinearHead(weight, torch.from_numpy(np.log(counts / counts.sum()).astype(np.float32)))


METHODS: dict[str, Any] = {
    "joint": JointSettings(method="joint"),
    "ncm": NcmSettings(method="ncm"),
    "tau_norm": TauNormSettings(method="tau_norm"),
    "lws": LwsSettings(method="lws", epochs=5, batch_size=BATCH),
    "crt": CrtSettings(method="crt", epochs=10, batch_size=BATCH),
}


class Work:
    """What the stages do, on banks that are mapped once."""

    def __init__(self, files: dict[str, Path], joint: heads.LinearHead, size: Size, device: torch.device) -> None:
        self.banks = {split: FeatureBank.open(file).to(device) for split, file in files.items()}
        self.joint, self.size, self.device = joint.to(device), size, device
        counts = np.bincount(self.banks["train"].labels.cpu().numpy(), minlength=size.classes)
        self.groups = metrics.shot_groups(counts, 100, 20)
        self.balanced: dict[str, float] = {}

    def run(self, method: str) -> dict[str, float]:
        """Seconds of fitting and of judging, as `rebalance` and `evaluate` do it."""
        train, val, test = (self.banks[split] for split in ("train", "val", "test"))
        start = time.perf_counter()
        head = METHODS[method].build(0).fit(train, val, self.joint).head.eval()
        self.settle()
        fitted = time.perf_counter()
        rebalance.judge(head, train, val)
        labels = test.labels.cpu().numpy()
        given = evaluate.ask(head, test)
        figures = metrics.score(labels, given, self.groups)
        judged = time.perf_counter()
        metrics.bootstrap(labels, given, self.groups, resamples=1000, seed=0)
        self.balanced[method] = round(float(figures["balanced"] or 0), 4)
        return {"fit": fitted - start, "judge": judged - fitted, "bootstrap": time.perf_counter() - judged}

    def settle(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def products(self) -> dict[str, float]:
        """Seconds of the bare products of each method, from memory, without anything around them."""
        size, rows = self.size, 4096
        block = torch.randn(rows, size.dim, device=self.device)
        batch = torch.randn(BATCH, size.dim, device=self.device)
        gradient = torch.randn(BATCH, size.classes, device=self.device)
        weight = torch.randn(size.classes, size.dim, device=self.device)

        def seconds(images: float, product: Callable[[], object], at_once: int) -> float:
            count = round(images / at_once)
            self.settle()
            start = time.perf_counter()
            for _ in range(count):
                product()
            self.settle()
            return time.perf_counter() - start

        def forward(images: float) -> float:
            return seconds(images, lambda: block @ weight.T, rows)

        steps = METHODS["crt"].epochs * size.train
        judged = size.train + size.val + size.test
        return {
            "joint": forward(judged),
            "ncm": forward(3 * size.val + judged),
            "tau_norm": forward(size.val + judged),
            "lws": forward(size.train + size.val + judged),
            "crt": seconds(steps, lambda: batch @ weight.T, BATCH)
            + seconds(steps, lambda: gradient.T @ batch, BATCH)
            + forward(METHODS["crt"].epochs * size.val + judged),
        }


def textbook(work: Work) -> dict[str, float]:
    """Seconds of τ's grid as a product for each τ, and of class means as a mean of each class's rows, thrice."""
    train, val = work.banks["train"], work.banks["val"]
    start = time.perf_counter()
    with torch.inference_mode():
        for step in range(21):
            weight = work.joint.weight / work.joint.weight.norm(dim=1, keepdim=True) ** (step / 10)
            (val.plain @ weight.T).argmax(dim=1)
    grid = time.perf_counter() - start
    start = time.perf_counter()
    center = train.plain.mean(dim=0)
    for transform in (
        lambda z: z,
        lambda z: torch.nn.functional.normalize(z, dim=1),
        lambda z: torch.nn.functional.normalize(z - center, dim=1),
    ):
        changed = transform(train.plain)
        torch.stack([changed[train.labels == label].mean(dim=0) for label in range(work.size.classes)])
    return {"tau_grid": grid, "class_means": time.perf_counter() - start}


class Peak:
    """The most memory that the process holds beside mapped files, in GiB, looked at every 20 ms."""

    def __enter__(self) -> Self:
        self.before = self.most = anonymous()
        self._over = threading.Event()
        self._watch = threading.Thread(target=self._look)
        self._watch.start()
        return self

    def _look(self) -> None:
        while not self._over.wait(0.02):
            self.most = max(self.most, anonymous())

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._watch.join()


def anonymous() -> float:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", choices=SIZES, default="imagenet-lt")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    asked = parser.parse_args()
    device, size = devices.resolve(asked.device), SIZES[asked.size]
    devices.make_deterministic(0)
    with tempfile.TemporaryDirectory() as scratch:
        work = Work(*write_banks(Path(scratch), size), size, device)
        if size.rounds > 1:
            for split in work.banks.values():
                split.features.sum()  # into the page cache
        rounds = []
        for _ in range(size.rounds):
            with Peak() as peak:
                spent = {method: work.run(method) for method in METHODS}
            rounds.append({"spent": spent, "products": work.products(), "peak": peak.most - peak.before})
        naive = textbook(work) if size.rounds > 1 else {}
    found = report(rounds) | {"textbook_seconds": {name: round(of, 2) for name, of in naive.items()}}
    found |= {"size": vars(size), "device": str(device), "balanced_on_test": work.balanced}
    show(found)
    suffix = ("" if asked.size == "imagenet-lt" else f"-{asked.size}") + ("-gpu" if device.type == "cuda" else "")
    text = json.dumps({"machine": machine(), **found}, indent=2)
    (RESULTS / f"classifiers{suffix}.json").write_text(text + "\n", encoding="utf-8")


def report(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the rounds; the ratio of each round, so that noise of the machine hits both sides."""

    def middle(values: Iterator[float]) -> float:
        return round(median(values), 3)

    methods = {
        method: {
            **{part: middle(of["spent"][method][part] for of in rounds) for part in ("fit", "judge", "bootstrap")},
            "products": middle(of["products"][method] for of in rounds),
        }
        for method in METHODS
    }

    def total(of: dict[str, Any], *parts: str) -> float:
        return sum(spent[part] for spent in of["spent"].values() for part in parts)

    ratios = [total(of, "fit", "judge") / sum(of["products"].values()) for of in rounds]
    return {
        "rounds": len(rounds),
        "seconds": methods,
        "seconds_in_all": middle(total(of, "fit", "judge", "bootstrap") for of in rounds),
        "bare_products_in_all": middle(sum(of["products"].values()) for of in rounds),
        "to_bare_products": {
            "median": round(median(ratios), 3),
            "min": round(min(ratios), 3),
            "max": round(max(ratios), 3),
        },
        "peak_memory_beyond_banks_gib": round(max(of["peak"] for of in rounds), 2),
    }


def show(found: dict[str, Any]) -> None:
    print(f"{'method':<12}{'fit':>8}{'judge':>8}{'bootstrap':>11}{'bare products':>15}   seconds")
    for method, of in found["seconds"].items():
        print(f"{method:<12}{of['fit']:>8.2f}{of['judge']:>8.2f}{of['bootstrap']:>11.2f}{of['products']:>15.2f}")
    print(f"fit and judge to bare products: {found['to_bare_products']['median']} (of {found['rounds']} rounds)")
    print(f"peak memory beyond the banks: {found['peak_memory_beyond_banks_gib']} GiB; {found['textbook_seconds']}")


if __name__ == "__main__":
    main()
