"""How fast a representation trains: ltrec, the textbook's loop, and the same steps on one resident batch.

The reference is torchvision's transforms on PIL images, a `DataLoader`, and an eager float32 loop that reads the loss
at each step. By turns, round after round; images a second of wall time. On a GPU, also at 224 pixels.

    python benchmarks/training.py [--device cpu|cuda]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from machine import machine, spread
from photos import write
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms

from ltrec.compute import device as devices
from ltrec.compute import precision
from ltrec.data.images.augmentation import AugmentSettings, PadCrop
from ltrec.data.images.decoding import Geometry
from ltrec.data.images.device_loader import DeviceLoader
from ltrec.models import network as networks
from ltrec.models.backbones import CifarResNetBackbone, TorchvisionBackbone
from ltrec.process import cores
from ltrec.training.loop import train
from ltrec.training.losses.cross_entropy import CrossEntropy
from ltrec.training.optim import CosineSchedule, Sgd
from ltrec.training.step import ComputeConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ltrec.models.network import Network

RESULTS = Path(__file__).parent / "results"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
ROUNDS = 5


@dataclass(frozen=True)
class Task:
    """What is trained, and on how many images a round."""

    backbone: Any
    geometry: Geometry
    augment: AugmentSettings
    reference: transforms.Compose
    photos: tuple[int, int]
    batch: int
    images: int


def tasks(device: torch.device) -> dict[str, Task]:
    to_tensor = [transforms.RandomHorizontalFlip(), transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    found = {
        "CIFAR ResNet-32, batch 128": Task(
            CifarResNetBackbone(name="cifar_resnet32"), Geometry(size=32, resize=32), AugmentSettings(crop=PadCrop()),
            transforms.Compose([transforms.RandomCrop(32, padding=4), *to_tensor]), (32, 32), 128,
            12800 if device.type == "cuda" else 768,
        )
    }  # fmt: skip
    if device.type == "cuda":
        jitter = transforms.ColorJitter(0.4, 0.4, 0.4)
        found["ResNeXt-50 32x4d at 224, batch 256"] = Task(
            TorchvisionBackbone(name="resnext50_32x4d"), Geometry(size=224, resize=256), AugmentSettings(jitter=0.4),
            transforms.Compose([transforms.RandomResizedCrop(224), jitter, *to_tensor]), (500, 375), 256, 4096,
        )  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    device = devices.resolve(parser.parse_args().device)
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        for number, (name, task) in enumerate(tasks(device).items()):
            names = write(Path(scratch, str(number)), min(task.images, 1024), task.photos)
            found[name] = of_task(task, Path(scratch, str(number)), names, device)
            show(name, found[name])
    file = RESULTS / ("training-gpu.json" if device.type == "cuda" else "training.json")
    about = machine() | ({"gpu": torch.cuda.get_device_name(device)} if device.type == "cuda" else {})
    file.write_text(json.dumps({"machine": about, **found}, indent=2) + "\n", encoding="utf-8")


def of_task(task: Task, folder: Path, names: list[str], device: torch.device) -> dict[str, Any]:
    names = (names * -(-task.images // len(names)))[: task.images]
    computed = precision.resolve("auto", device, where="--device")
    modes: dict[str, ComputeConfig] = {"ltrec": ComputeConfig(computed)}
    if precision.native(device) == "bf16":
        modes["ltrec, fp32" if computed == "bf16" else "ltrec, bf16"] = ComputeConfig(
            "fp32" if computed == "bf16" else "bf16"
        )
    if device.type == "cuda":
        modes["ltrec, compiled"] = ComputeConfig(computed, "default")
        modes["ltrec, CUDA graphs"] = ComputeConfig(computed, "reduce-overhead")
    ways: dict[str, Callable[[], None]] = {"reference": reference(task, folder, names, device)}
    for name, compute in modes.items():
        ways[name], ways[f"{name}, bare steps"] = ltrec(task, folder, names, device, compute)
    memory, spent = {}, dict[str, list[float]]()
    for number in range(ROUNDS + 1):
        for name, way in ways.items():
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
                held = torch.cuda.memory_allocated(device)  # weights and optimizers of all ways
            start = time.perf_counter()
            way()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
                memory[name] = round((torch.cuda.max_memory_allocated(device) - held) / 2**30, 2)
            if number:  # the first round only warms up
                spent.setdefault(name, []).append(
                    task.images // task.batch * task.batch / (time.perf_counter() - start)
                )
    rates = {name: spread(of) for name, of in spent.items()}
    result: dict[str, Any] = {"images_per_second": rates}
    base = rates["reference"]["median"]
    result["to_reference"] = {name: round(of["median"] / base, 2) for name, of in rates.items()}
    result["to_bare_steps"] = {
        name: round(rates[name]["median"] / rates[f"{name}, bare steps"]["median"], 3) for name in modes
    }
    if device.type == "cuda":
        result["peak_memory_beyond_weights_gib"] = memory
        flops, rate = flops_an_image(task, device), product_rate(device, computed)
        result["flops_an_image"] = flops
        result["share_of_a_bare_products_rate"] = {
            name: round(flops * rates[name]["median"] / rate, 3) for name in modes if "fp32" not in name
        }
    return result


def build(task: Task, device: torch.device) -> Network:
    torch.manual_seed(0)
    return networks.on_device(networks.build(task.backbone, task.geometry, MEAN, STD, 1000), device)


def ltrec(
    task: Task, folder: Path, names: list[str], device: torch.device, compute: ComputeConfig
) -> tuple[Callable[[], None], Callable[[], None]]:
    """A round of training from files (or memory, where the set fits), and of the same steps on one resident batch."""
    network = build(task, device)
    optimizer = Sgd(lr=0.01).build(network.backbone, network.head)
    schedule = CosineSchedule().build(optimizer, epochs=10_000, steps=task.images // task.batch)
    labels = torch.arange(task.images, device=device) % 1000
    loader = DeviceLoader((folder, names), task.geometry, device, task.batch, augment=task.augment.build())
    loss = CrossEntropy().build(np.ones(1000, dtype=np.int64)).to(device)
    side = task.geometry.size
    resident = (
        torch.randint(0, 256, (task.batch, side, side, 3), dtype=torch.uint8, device=device),
        labels[: task.batch],
    )

    def steps(batches: Callable[[], Iterable[tuple[torch.Tensor, torch.Tensor]]]) -> Callable[[], None]:
        return lambda: train(
            network, loss, lambda _epoch: batches(), optimizer, schedule,
            epochs=range(1), batch_size=task.batch, seed=0, on_epoch=lambda _report: None, compute=compute,
        )  # fmt: skip

    order = np.random.default_rng(0).permutation(task.images)
    fed = steps(lambda: ((images, labels[index]) for images, index in loader.epoch(order, (0, 0), drop_last=True)))
    return fed, steps(lambda: [resident] * (task.images // task.batch))


class Files(Dataset[Any]):
    def __init__(self, folder: Path, names: list[str], transform: transforms.Compose) -> None:
        self.folder, self.names, self.transform = folder, names, transform

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, n: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.open(self.folder / self.names[n]).convert("RGB")), n % 1000


def reference(task: Task, folder: Path, names: list[str], device: torch.device) -> Callable[[], None]:
    network = build(task, device).to(memory_format=torch.contiguous_format)
    body, head = network.backbone, network.head
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    loader = DataLoader(
        Files(folder, names, task.reference), task.batch,
        shuffle=True, drop_last=True, num_workers=cores(), pin_memory=device.type == "cuda",
    )  # fmt: skip

    def steps() -> None:
        network.train()
        total = 0.0
        for images, labels in loader:
            loss = F.cross_entropy(head(body(images.to(device))), labels.to(device))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += loss.item()

    return steps


def flops_an_image(task: Task, device: torch.device) -> float:
    """Of forward and backward."""
    network, side = build(task, device), task.geometry.size
    images = torch.zeros(4, side, side, 3, dtype=torch.uint8, device=device)
    with FlopCounterMode(display=False) as counter:
        network(images).sum().backward()
    return float(counter.get_total_flops()) / 4


def product_rate(device: torch.device, computed: str) -> float:
    """FLOP a second of a large matrix product in the training's precision: what this GPU gives at best."""
    dtype = torch.bfloat16 if computed == "bf16" else torch.float32
    a = torch.randn(8192, 8192, device=device, dtype=dtype)
    a @ a
    torch.cuda.synchronize(device)
    rates = []
    for _ in range(10):
        start = time.perf_counter()
        for _ in range(10):
            a @ a
        torch.cuda.synchronize(device)
        rates.append(10 * 2 * 8192**3 / (time.perf_counter() - start))
    return median(rates)


def show(name: str, found: dict[str, Any]) -> None:
    print(name)
    for way, of in found["images_per_second"].items():
        print(f"  {way:<34}{of['median']:>10.1f} images/s {found['to_reference'][way]:>7.2f} x the reference")
    for way, share in found["to_bare_steps"].items():
        print(f"  {way:<34}{share:>10.1%} of its bare steps")


if __name__ == "__main__":
    main()
