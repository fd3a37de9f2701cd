"""How fast images come to the network: ltrec against the textbook's way, and against what bounds it.

The reference is torchvision's transforms on PIL images (RandomResizedCrop, flip, ColorJitter, ToTensor, Normalize), the
paper's training transform. Everything is counted in CPU seconds of one process on one core, side by side, round after
round; a ratio is that of the medians.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from machine import machine, spread
from photos import write
from PIL import Image
from torchvision import transforms

from ltrec.data.images import jpeg
from ltrec.data.images.augmentation import AugmentSettings, PadCrop
from ltrec.data.images.cache import Cache, CacheSettings
from ltrec.data.images.dataset import ImageDataset
from ltrec.data.images.decoding import Geometry
from ltrec.data.images.device_loader import DeviceLoader
from ltrec.data.images.erasing import Cutout
from ltrec.data.images.policies import AutoAugment
from ltrec.models import network as networks
from ltrec.models.backbones import CifarResNetBackbone
from ltrec.training.loop import train
from ltrec.training.losses.cross_entropy import CrossEntropy
from ltrec.training.optim import CosineSchedule, Sgd

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

RESULTS = Path(__file__).parent / "results" / "feeding.json"
GEOMETRY = Geometry(size=224, resize=256)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
AUGMENT = AugmentSettings(jitter=0.4).build()
SIZES = {"300x200": ((300, 200), 48), "500x375": ((500, 375), 48), "4000x3000": ((4000, 3000), 4)}
RESIDENT = {
    "resident": AugmentSettings(crop=PadCrop()),
    "resident_strong": AugmentSettings(crop=PadCrop(), policy=AutoAugment(policy="cifar10"), erase=Cutout(size=16)),
}
ROUNDS = 7


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        found = {name: of_size(Path(scratch, name), *size) for name, size in SIZES.items()}
        found["device_part"] = of_device_part()
        torch.set_num_threads(2)
        for name, settings in RESIDENT.items():
            found[name] = of_resident(Path(scratch, name), settings)
    show(found)
    RESULTS.write_text(json.dumps({"machine": machine(), **found}, indent=2) + "\n", encoding="utf-8")


def of_size(folder: Path, size: tuple[int, int], count: int) -> dict[str, Any]:
    """Seconds an image of each way to a square of 224 pixels."""
    names = write(folder, count, size)
    reference = transforms.Compose(
        [
            transforms.RandomResizedCrop(GEOMETRY.size),
            transforms.RandomHorizontalFlip(),
            transforms.ColorJitter(0.4, 0.4, 0.4),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    ways: dict[str, Callable[[int], object]] = {
        "reference": lambda n: reference(Image.open(folder / names[n]).convert("RGB")),
        "bare_decode": lambda n: Image.open(folder / names[n]).load(),
        "ltrec_pillow": without_simplejpeg(item_of(folder, names)),
        "ltrec": item_of(folder, names),
    }
    for settings in (CacheSettings(), CacheSettings(format="raw")):
        cache = Cache(folder / "cache", settings)
        if cache.pays(folder / names[0]):
            originals = {hashlib.sha256((folder / name).read_bytes()).hexdigest(): folder / name for name in names}
            cache.fill(originals, workers=None)
            copies = [str(cache.copy_of(digest)) for digest in originals]
            ways[f"ltrec_cache_{settings.format}"] = item_of(folder, copies)
    spent = side_by_side({name: partial(each, way, count) for name, way in ways.items()}, per=count)
    per_second = {name: spread([1 / seconds for seconds in of]) for name, of in spent.items()}
    ratios = {name: round(of["median"] / per_second["reference"]["median"], 2) for name, of in per_second.items()}
    kilobytes = round(np.mean([(folder / name).stat().st_size for name in names]) / 1e3, 1)
    return {"kilobytes_a_file": kilobytes, "images_per_cpu_second": per_second, "to_reference": ratios}


def item_of(root: Path, names: Sequence[str]) -> Callable[[int], object]:
    images = ImageDataset(root, names, GEOMETRY, AUGMENT.crop)
    return lambda n: images[n, n]


def without_simplejpeg(way: Callable[[int], object]) -> Callable[[int], object]:
    """The same on a machine that does not have it."""
    names = vars(jpeg)

    def alone(n: int) -> object:
        kept, names["simplejpeg"] = names["simplejpeg"], None
        try:
            return way(n)
        finally:
            names["simplejpeg"] = kept

    return alone


def each(way: Callable[[int], object], count: int) -> None:
    for n in range(count):
        way(n)


def of_device_part() -> dict[str, Any]:
    """Flip and colour jitter of a batch, where the device is this CPU: seconds an image."""
    squares = torch.randint(0, 256, (32, GEOMETRY.size, GEOMETRY.size, 3), dtype=torch.uint8)
    draws = torch.rand(32, AUGMENT.draws)
    spent = side_by_side({"cpu": lambda: AUGMENT(squares, draws)}, per=32)
    return {"milliseconds_an_image": spread([1e3 * seconds for seconds in spent["cpu"]])}


def of_resident(folder: Path, settings: AugmentSettings) -> dict[str, Any]:
    """A CIFAR ResNet-32 fed from memory with augmented images against the same steps on one resident batch."""
    names, batch = write(folder, 512, (32, 32)), 128
    geometry, augment = Geometry(size=32, resize=32), settings.build(MEAN, STD)
    loader = DeviceLoader((folder, names), geometry, torch.device("cpu"), batch, augment=augment)
    labels = torch.arange(len(names)) % 10
    order = np.random.default_rng(0).permutation(len(names))
    resident = [(torch.zeros(batch, 32, 32, 3, dtype=torch.uint8), labels[:batch])] * (len(names) // batch)

    def fed() -> list[tuple[torch.Tensor, torch.Tensor]]:
        return [(images, labels[index]) for images, index in loader.epoch(order, (0, 0), drop_last=True)]

    network = networks.build(CifarResNetBackbone(name="cifar_resnet32"), geometry, MEAN, STD, 10)
    loss = CrossEntropy().build(np.ones(10, dtype=np.int64))
    optimizer = Sgd().build(network.backbone, network.head)
    schedule = CosineSchedule().build(optimizer, epochs=1000, steps=len(resident))
    loss = CrossEntropy().build(np.bincount(labels))

    def steps(batches: Callable[[], list[tuple[torch.Tensor, torch.Tensor]]]) -> None:
        train(
            network, loss, lambda _epoch: batches(), optimizer, schedule,
            epochs=range(1), batch_size=batch, seed=0, on_epoch=lambda _report: None,
        )  # fmt: skip

    fed()
    spent = side_by_side({"bare_steps": lambda: steps(lambda: resident), "fed_steps": lambda: steps(fed), "feed": fed},
                         per=len(resident), clock=time.perf_counter, rounds=5)  # fmt: skip
    seconds = {name: spread(of) for name, of in spent.items()}
    bare = seconds["bare_steps"]["median"]
    return {
        "seconds_a_step": seconds,
        "feed_to_step": round(seconds["feed"]["median"] / bare, 4),
        "milliseconds_an_image": round(1e3 * seconds["feed"]["median"] / batch, 4),
        "bare_to_fed": round(bare / seconds["fed_steps"]["median"], 3),
    }


def side_by_side(
    ways: dict[str, Callable[[], object]],
    *,
    per: int,
    clock: Callable[[], float] = time.process_time,
    rounds: int = ROUNDS,
) -> dict[str, list[float]]:
    """Seconds of each way, by turns, divided by `per`; the first round only warms up."""
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            start = clock()
            way()
            if number:
                spent[name].append((clock() - start) / per)
    return spent


def show(found: dict[str, Any]) -> None:
    for size in SIZES:
        for name, of in found[size]["images_per_cpu_second"].items():
            ratio = found[size]["to_reference"][name]
            print(f"{size:<12}{name:<18}{of['median']:>10.1f} images/CPU s {ratio:>7.2f} x the reference")
    print(f"device part on this CPU: {found['device_part']['milliseconds_an_image']['median']:.2f} ms an image")
    for name in RESIDENT:
        print(f"{name} CIFAR-sized set: feeding takes {found[name]['feed_to_step']:.1%} of a step")


if __name__ == "__main__":
    main()
