"""Everything after `featurize`, at full size on synthetic features: how far from the bare matrix products?

Six NCM variants, 21 values of τ, 31 of logit adjustment's τ, 9 λ each of the Gaussians and the ridge, LWS for 5 epochs,
cRT and DisAlign for 10, joint, and each one's figures on train, val and test, through the package's own stages'
functions. Beside it the bare products that these need, from memory, in the same precision and the same batches, and the
textbook's ways of τ's grid and of class means. Peak memory is what the process holds beside the memory-mapped banks.

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
import photos
import torch
from machine import machine
from pydantic import TypeAdapter

from ltrec.compute import device as devices
from ltrec.compute import precision
from ltrec.data.images.augmentation import AugmentSettings
from ltrec.data.images.decoding import Geometry
from ltrec.data.images.device_loader import DeviceLoader, training_loader
from ltrec.data.shot_groups import shot_groups
from ltrec.evaluation.calibration import judge
from ltrec.evaluation.metrics import score
from ltrec.evaluation.predictions import Predictions, predict
from ltrec.evaluation.statistics import bootstrap
from ltrec.models import heads
from ltrec.models import network as networks
from ltrec.models.backbones import BackboneSettings
from ltrec.rebalancing import feature_bank as features
from ltrec.rebalancing.feature_bank import FeatureBank
from ltrec.rebalancing.head_figures import calibrate, head_figures
from ltrec.rebalancing.image_features import ImageFeatures
from ltrec.rebalancing.methods import ncm
from ltrec.rebalancing.methods.crt import CrtSettings
from ltrec.rebalancing.methods.disalign import DisAlignSettings
from ltrec.rebalancing.methods.gda import GdaSettings
from ltrec.rebalancing.methods.joint import JointSettings
from ltrec.rebalancing.methods.logit_adjustment import LogitAdjustmentSettings
from ltrec.rebalancing.methods.lws import LwsSettings
from ltrec.rebalancing.methods.ncm import NcmSettings
from ltrec.rebalancing.methods.ridge import RidgeSettings
from ltrec.rebalancing.methods.tau_norm import TauNormSettings

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
    world = np.linspace(0, 1, size.classes)
    low, high = 0.01, 50.0
    for _ in range(60):
        steep = (low + high) / 2
        counts = size.least + (size.most - size.least) * (1 - world) ** steep
        low, high = (steep, high) if counts.sum() > size.train else (low, steep)
    found: np.ndarray[Any, Any] = np.maximum(counts.astype(int), size.least)
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
    "logit_adjustment": LogitAdjustmentSettings(method="logit_adjustment"),
    "gda": GdaSettings(method="gda"),
    "ridge": RidgeSettings(method="ridge"),
    "disalign": DisAlignSettings(method="disalign", epochs=10, batch_size=BATCH),
}


class Work:
    """What the stages do, on banks that are mapped once."""

    def __init__(self, files: dict[str, Path], joint: heads.LinearHead, size: Size, device: torch.device) -> None:
        self.banks = {split: FeatureBank.open(file).to(device) for split, file in files.items()}
        self.joint, self.size, self.device = joint.to(device), size, device
        counts = np.bincount(self.banks["train"].labels.cpu().numpy(), minlength=size.classes)
        self.groups = shot_groups(counts, 100, 20)
        self.balanced: dict[str, float] = {}
        self.given: dict[str, Predictions] = {}

    def run(self, method: str) -> dict[str, float]:
        """Seconds of fitting and of judging, as `rebalance` and `evaluate` do it."""
        train, val, test = (self.banks[split] for split in ("train", "val", "test"))
        start = time.perf_counter()
        head = METHODS[method].build(0).fit(train, val, self.joint).head.eval()
        self.settle()
        fitted = time.perf_counter()
        calibrate(head, val)
        head_figures(head, train, val)
        self.given[method], certainty = predict(head, test.plain, test.labels)
        labels = test.labels.cpu().numpy()
        judge(certainty, self.given[method].predicted == labels, labels)
        figures = score(labels, self.given[method], self.groups)
        self.balanced[method] = round(float(figures["balanced"] or 0), 4)
        return {"fit": fitted - start, "judge": time.perf_counter() - fitted}

    def bootstrap(self) -> float:
        """Seconds of all heads' intervals, as `evaluate` makes them."""
        start = time.perf_counter()
        labels = self.banks["test"].labels.cpu().numpy()
        bootstrap(labels, self.given, self.groups, resamples=1000, seed=0)
        return time.perf_counter() - start

    def settle(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def products(self) -> dict[str, float]:
        """Seconds of the bare products of each method, from memory, without anything around them."""
        size, rows = self.size, 4096
        block = torch.randn(rows, size.dim, device=self.device)
        weight = torch.randn(size.classes, size.dim, device=self.device)
        learnt = torch.bfloat16 if precision.native(self.device) == "bf16" else torch.float32
        batch, gradient, moving = (
            torch.randn(shape, device=self.device).to(learnt)
            for shape in ((BATCH, size.dim), (BATCH, size.classes), (size.classes, size.dim))
        )

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
            "crt": seconds(steps, lambda: batch @ moving.T, BATCH)
            + seconds(steps, lambda: gradient.T @ batch, BATCH)
            + forward(METHODS["crt"].epochs * size.val + judged),
            "logit_adjustment": forward(size.val + judged),
            "gda": self.closed_form(seconds, block, len(METHODS["gda"].shrinkages), weight) + forward(judged),
            "ridge": self.closed_form(seconds, block, len(METHODS["ridge"].lambdas), weight) + forward(judged),
            "disalign": forward(size.train + size.val + judged),
        }

    def closed_form(
        self, seconds: Callable[..., float], block: torch.Tensor, candidates: int, weight: torch.Tensor
    ) -> float:
        """Seconds of a Gram product, an eigendecomposition, val's rotation, and val's logits of each candidate."""
        size, rows = self.size, len(block)
        square = block[: size.dim].double()
        square = square @ square.T
        rotation = square.float()
        return (
            seconds(size.train, lambda: block.T @ block, rows)
            + seconds(rows, lambda: torch.linalg.eigh(square), rows)
            + seconds(size.val, lambda: block @ rotation, rows)
            + seconds(candidates * size.val, lambda: block @ weight.T, rows)
        )


def textbook(work: Work) -> dict[str, Any]:
    """Seconds and GiB of what a page of code would do, beside ltrec's own way, on the same features.

    τ's grid as a product for each τ on the test features, and class means as a mean of each class's rows, thrice.
    """
    train, test, classes = work.banks["train"], work.banks["test"], work.size.classes
    device = work.device

    def grid() -> None:
        features = test.plain.to(device)
        for step in range(21):
            weight = work.joint.weight / work.joint.weight.norm(dim=1, keepdim=True) ** (step / 10)
            (features @ weight.T).argmax(dim=1)

    def means() -> None:
        features, labels = train.plain.to(device), train.labels
        center = features.mean(dim=0)
        for transform in (
            lambda z: z,
            lambda z: torch.nn.functional.normalize(z, dim=1),
            lambda z: torch.nn.functional.normalize(z - center, dim=1),
        ):
            changed = transform(features)
            torch.stack([changed[labels == label].mean(dim=0) for label in range(classes)])

    def own_grid() -> None:
        with precision.fast_float32():
            METHODS["tau_norm"].build(0).fit(train, test, work.joint)

    def own_means() -> None:
        ncm.class_means(train, classes, ["un", "l2n", "cl2n"])

    found: dict[str, Any] = {}
    with torch.no_grad():
        for name, ways in {"tau_grid": (grid, own_grid), "class_means": (means, own_means)}.items():
            found[name] = {way: alone(work, run) for way, run in zip(("textbook", "ltrec"), ways, strict=True)}
    return found


def alternatives(work: Work) -> dict[str, Any]:
    """CRT for two epochs in float32, in bf16, and for four learning rates side by side: seconds, and val's accuracy."""
    ways: dict[str, dict[str, Any]] = {
        "fp32": {"precision": "fp32"},
        "auto": {},
        "auto, 4 learning rates": {"more_lrs": [0.05, 0.2, 0.4]},
    }
    found: dict[str, Any] = {}
    for name, settings in ways.items():
        crt = CrtSettings.model_validate({"method": "crt", "epochs": 2, "batch_size": BATCH, **settings})
        curve: list[Any] = []

        def fit(crt: CrtSettings = crt, curve: list[Any] = curve) -> None:
            with precision.fast_float32():
                curve += crt.build(0).fit(work.banks["train"], work.banks["val"], work.joint).curve

        of_way = alone(work, fit)
        found[name] = of_way | {"val": [row["val"] for row in curve if row.get("lr", 0.1) == 0.1]}
    return {"crt, 2 epochs": found}


def alone(work: Work, run: Callable[[], object]) -> dict[str, float]:
    """Seconds and peak GiB of one run."""
    work.settle()
    with Peak() as peak:
        start = time.perf_counter()
        run()
        work.settle()
        seconds = time.perf_counter() - start
    return {"seconds": round(seconds, 2), "peak_gib": round(peak.most - peak.before, 2)}


def images_beside_the_bank(device: torch.device) -> dict[str, Any]:
    """CRT as in the paper, images through the frozen network in each epoch, beside cRT from the bank.

    ResNet-10 at 64 pixels, 512 images in 8 classes, 3 epochs: what fits in seconds. The bank's cost, one pass of the
    plain view, is counted to the bank's way.
    """
    size, classes, count, epochs = 64, 8, 512, 3
    labels = torch.arange(count) % classes
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "images"
        names = photos.write(root, count, (96, 96))
        geometry = Geometry(size=size, resize=72)
        backbone: Any = TypeAdapter(BackboneSettings).validate_python({"name": "resnet10"})
        network = networks.build(backbone, geometry, (0.5,) * 3, (0.25,) * 3, classes).to(device).eval()
        crt = CrtSettings(method="crt", epochs=epochs, batch_size=64)
        plain = DeviceLoader((root, names), geometry, device, 64)
        start = time.perf_counter()
        given = [
            networks.predict_features(network, images).clone().cpu()
            for images, _ in plain.epoch(np.arange(count), (0, 0), drop_last=False)
        ]
        bank = FeatureBank(torch.cat(given)[None], labels, {}).to(device)
        featurized = time.perf_counter()
        joint = network.head
        assert isinstance(joint, heads.LinearHead)
        crt.build(0).fit(bank, bank, joint)
        fitted = time.perf_counter()
        loader = training_loader((root, names), geometry, device, 64, augment=AugmentSettings().build(), workers=0)
        images = ImageFeatures.of(bank, network, loader, on_images=lambda _: None)
        crt.build(0).fit(images, bank, joint)
        through = time.perf_counter() - fitted
    return {
        "images": count, "epochs": epochs,
        "featurize_seconds": round(featurized - start, 3),
        "from_bank_seconds": round(fitted - featurized, 3),
        "through_network_seconds": round(through, 3),
        "ratio_with_featurize": round(through / (fitted - start), 2),
        "ratio_of_a_further_variant": round(through / (fitted - featurized), 1),
    }  # fmt: skip


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
    with devices.repeatable(0, "warn"), precision.exact_float32(), tempfile.TemporaryDirectory() as scratch:
        work = Work(*write_banks(Path(scratch), size), size, device)
        if size.rounds > 1:
            for split in work.banks.values():
                split.features.sum()  # into the page cache
        rounds = []
        for _ in range(size.rounds):
            with precision.fast_float32():
                with Peak() as peak:
                    spent = {method: work.run(method) for method in METHODS}
                    bootstrap = work.bootstrap()
                products = work.products()
            rounds.append(
                {"spent": spent, "bootstrap": bootstrap, "products": products, "peak": peak.most - peak.before}
            )
        found = report(rounds)
        if size.rounds > 1:
            found |= {"beside": textbook(work) | alternatives(work)}
    found |= {"size": vars(size), "device": str(device), "balanced_on_test": work.balanced}
    found |= {"learnt_in": precision.native(device)}
    if size.rounds > 1:
        found |= {"images": images_beside_the_bank(device)}
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
            **{part: middle(of["spent"][method][part] for of in rounds) for part in ("fit", "judge")},
            "products": middle(of["products"][method] for of in rounds),
        }
        for method in METHODS
    }

    def total(of: dict[str, Any]) -> float:
        return float(of["bootstrap"] + sum(sum(spent.values()) for spent in of["spent"].values()))

    ratios = [total(of) / sum(of["products"].values()) for of in rounds]
    return {
        "rounds": len(rounds),
        "seconds": methods,
        "bootstrap_seconds": middle(of["bootstrap"] for of in rounds),
        "seconds_in_all": middle(map(total, rounds)),
        "bare_products_in_all": middle(sum(of["products"].values()) for of in rounds),
        "to_bare_products": {
            "median": round(median(ratios), 3),
            "min": round(min(ratios), 3),
            "max": round(max(ratios), 3),
        },
        "peak_memory_beyond_banks_gib": round(max(of["peak"] for of in rounds), 2),
    }


def show(found: dict[str, Any]) -> None:
    print(f"{'method':<12}{'fit':>8}{'judge':>8}{'bare products':>15}   seconds")
    for method, of in found["seconds"].items():
        print(f"{method:<12}{of['fit']:>8.2f}{of['judge']:>8.2f}{of['products']:>15.2f}")
    print(f"bootstrap   {found['bootstrap_seconds']:>8.2f}")
    all_seconds, bare = found["seconds_in_all"], found["bare_products_in_all"]
    print(
        f"all {all_seconds:.1f} s, bare products {bare:.1f} s: {found['to_bare_products']} in {found['rounds']} rounds"
    )
    print(f"peak memory beyond the banks: {found['peak_memory_beyond_banks_gib']} GiB")
    for name in ("beside", "images"):
        print(json.dumps(found.get(name, {})))


if __name__ == "__main__":
    main()
