"""How many flipped labels and known copies `evaluate` finds, on digits and a small CIFAR-10-LT; prints JSON.

Labels: 5 % of each split get another class, uniformly; a network is trained on them; the first k suspects, k the number
flipped, are held against a random order and the joint head's own confidence. Copies: training images, altered, among
the images of val and test of a network trained on true labels. The CIFAR images are JPEG copies, 1,000 to 10 a class.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from machine import ROOT, machine
from PIL import Image, ImageEnhance, ImageOps

from ltrec import artifacts, console, process
from ltrec.artifacts import SPLITS, Layout
from ltrec.config import params, recipes
from ltrec.config.tracking import TrackingSettings
from ltrec.data.downloads.digits import write_digits
from ltrec.data.image_lists import ImageList, list_text, read_classes, read_list
from ltrec.data.images.device_loader import DeviceLoader
from ltrec.data.shot_groups import GROUPS, shot_groups
from ltrec.evaluation.near_duplicates import find_near_duplicates
from ltrec.models import network as networks
from ltrec.rebalancing.feature_bank import FeatureBank
from ltrec.rebalancing.leave_one_out import find_suspects
from ltrec.stages import featurize, prepare, represent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from torch import Tensor

    from ltrec.config.params import Params
    from ltrec.models.network import Network

Figures = dict[str, Any]

_ARCHIVE = ROOT.parent / "shared" / "datasets" / "cifar10-jpeg.tar.xz"
_SHARE, _COPIES = 0.05, 100
_LAYOUT = Layout()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, default=_ARCHIVE, metavar="ARCHIVE", help="of CIFAR-10 as image files")
    parser.add_argument("--epochs", type=int, default=15, help="of the representation on CIFAR-10-LT (default: 15)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the JSON there, too")
    options = parser.parse_args()
    if not options.images.is_file():
        parser.error(f"{options.images}: no such file; it must hold train/<class>/")

    process.share_cores()
    console.set_verbosity(console.Verbosity.QUIET)
    result: Figures = {"machine": machine(), "flipped_share": _SHARE, "copies": _COPIES}
    with tempfile.TemporaryDirectory(prefix="ltrec-suspects-") as scratch:
        folder = Path(scratch)
        write_digits(folder / "digits")
        with tarfile.open(options.images) as archive:
            archive.extractall(folder / "cifar", filter="data")
        digits = params.load(ROOT / "params.yaml")
        result["digits"] = _measure(folder, "digits", folder / "digits", digits)
        result["cifar10-lt"] = _measure(folder, "cifar10-lt", folder / "cifar" / "train", _cifar(options.epochs))
    result["scale"] = _scale()
    text = json.dumps(result, indent=2) + "\n"
    if options.output:
        artifacts.write_text(options.output, text)
    sys.stdout.write(text)


def _cifar(epochs: int) -> Params:
    """The recipe of CIFAR-10-LT on a tenth of the images, with a smaller network and few epochs."""
    given = params.parse(recipes.find("cifar10-lt").text({"imbalance_factor": "100"})).model_dump(mode="json")
    given["prepare"] |= {
        "source": {"kind": "folder", "root": "data"}, "split": {"val": 20, "test": 100}, "decode": False,
        "long_tail": {"profile": "exponential", "imbalance_factor": 100, "n_max": 1000},
    }  # fmt: skip
    given["represent"] |= {"backbone": {"name": "cifar_resnet20"}, "epochs": epochs, "batch_size": 64}
    return params.Params.model_validate_json(json.dumps(given))


def _measure(folder: Path, name: str, data: Path, settings: Params) -> Figures:
    off = {"tracking": TrackingSettings(enabled=False)}
    settings = settings.model_copy(
        update=off | {"featurize": settings.featurize.model_copy(update={"views": 0}), "device": "cpu"}
    )
    with _project(folder / f"{name}-flipped", data):
        prepare.run(settings)
        true = _flip()
        found = _suspects(_train(settings), true, settings)
    with _project(folder / f"{name}-copies", data):
        prepare.run(settings)
        return {"suspects": found, "near_duplicates": _near_duplicates(_train(settings))}


@contextlib.contextmanager
def _project(folder: Path, data: Path) -> Iterator[None]:
    folder.mkdir()
    (folder / "data").symlink_to(data)
    (folder / "params.yaml").touch()  # marks the project's root
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()):
        yield


def _flip() -> NDArray[np.int64]:
    """Give 5 % of each split's images another label; return all true labels, split after split."""
    classes, random, true = len(read_classes(_LAYOUT.classes)), np.random.default_rng(0), []
    for split in SPLITS:
        images = read_list(_LAYOUT.split_list(split), classes)
        labels = images.labels.copy()
        drawn = random.permutation(len(labels))[: round(_SHARE * len(labels))]
        labels[drawn] = (labels[drawn] + random.integers(1, classes, len(drawn))) % classes
        artifacts.write_text(_LAYOUT.split_list(split), list_text(ImageList(images.paths, labels)))
        true.append(images.labels)
    return np.concatenate(true)


class _Trained(NamedTuple):
    network: Network
    features: Tensor
    labels: Tensor
    sizes: list[int]


def _train(settings: Params) -> _Trained:
    represent.run(settings)
    featurize.run(settings)
    banks = [FeatureBank.open(_LAYOUT.features(split)) for split in SPLITS]
    features, labels = torch.cat([bank.plain for bank in banks]), torch.cat([bank.labels for bank in banks])
    return _Trained(networks.load(_LAYOUT.model).eval(), features, labels, [len(bank.labels) for bank in banks])


def _suspects(trained: _Trained, true: NDArray[np.int64], settings: Params) -> Figures:
    labels, shots = trained.labels.numpy(), settings.evaluate.shots
    wrong = labels != true
    counts = np.bincount(labels[: trained.sizes[0]], minlength=labels.max() + 1)
    groups = shot_groups(counts, shots.many_above, shots.few_below)[labels]
    splits = np.repeat(SPLITS, trained.sizes)
    start = time.perf_counter()
    found = find_suspects(trained.features, trained.labels)
    seconds = time.perf_counter() - start
    with torch.inference_mode():
        own = trained.network.head(trained.features).softmax(dim=1).gather(1, trained.labels[:, None])[:, 0]
    number = int(wrong.sum())
    orders = {
        "leave-one-out nearest mean": found.rows.numpy(),
        "joint head's confidence": own.argsort(stable=True).numpy(),
        "random": np.random.default_rng(1).permutation(len(labels)),
    }
    return {
        "images": len(labels), "flipped": number, "seconds": round(seconds, 3), "suspects": len(found.rows),
        "sum_of_confidences": round(float(found.confidences.sum()), 1),
        "first": {
            name: {
                "all": _found(order[:number], wrong, np.full(len(labels), fill_value=True)),
                **{group: _found(order[:number], wrong, groups == group) for group in GROUPS},
                **{split: _found(order[:number], wrong, splits == split) for split in SPLITS},
            }
            for name, order in orders.items()
        },
    }  # fmt: skip


def _found(first: NDArray[np.int64], wrong: NDArray[np.bool_], within: NDArray[np.bool_]) -> Figures:
    """Precision and recall of the first suspects within a part of the images; null where it has none."""
    named, flipped = first[within[first]], int((wrong & within).sum())
    hits = int(wrong[named].sum())
    return {
        "flipped": flipped,
        "precision": round(hits / len(named), 3) if len(named) else None,
        "recall": round(hits / flipped, 3) if flipped else None,
    }


def _near_duplicates(trained: _Trained) -> Figures:
    """How many altered copies of training images are found, and how many images that are no copies."""
    train = read_list(_LAYOUT.split_list("train"), None)
    drawn = np.sort(np.random.default_rng(2).permutation(len(train))[:_COPIES])
    alone, found = find_near_duplicates(trained.features, trained.sizes), {}
    center = trained.features.mean(dim=0)
    directions = torch.nn.functional.normalize(trained.features - center, dim=1)
    first, rest = directions[: trained.sizes[0]], directions[trained.sizes[0] :]
    fixed = int(((rest @ first.T).amax(dim=1) > 0.99).sum())
    for kind, alter in _KINDS.items():
        folder = Path("copies") / kind
        folder.mkdir(parents=True)
        for row in drawn:
            with Image.open(Path("data") / train.paths[row]) as image:
                alter(image.convert("RGB")).save(folder / f"{row}.png")
        files, geometry = (folder, [f"{row}.png" for row in drawn]), trained.network.geometry
        loader = DeviceLoader(files, geometry, torch.device("cpu"), 32, workers=1, several_epochs=False)
        batches = loader.epoch(np.arange(len(drawn)), (0, 0), drop_last=False)
        copies = torch.cat([networks.predict_features(trained.network, images, "fp32") for images, _ in batches])
        pairs = find_near_duplicates(torch.cat([trained.features, copies]), [*trained.sizes, len(copies)])
        right = {(int(row), len(trained.features) + place) for place, row in enumerate(drawn)}
        cosines = torch.nn.functional.cosine_similarity(copies - center, trained.features[drawn] - center)
        found[kind] = {
            "found": round(len(right & {(pair.first, pair.second) for pair in pairs}) / len(drawn), 2),
            "cosine_above_0.99": round(float((cosines > 0.99).float().mean()), 2),
        }
    return {"images": len(rest), "pairs_without_copies": len(alone), "with_a_cosine_above_0.99": fixed, "copies": found}


def _scale() -> Figures:
    """Seconds for 10^5 images of 512 features in 1,000 classes, 70 % of them in train."""
    images, dim, classes = 100_000, 512, 1000
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(classes, (images,), generator=generator)
    features = torch.randn(classes, dim, generator=generator)[labels] + torch.randn(images, dim, generator=generator)
    found: Figures = {"images": images, "features": dim, "classes": classes}
    start = time.perf_counter()
    find_suspects(features, labels)
    found["suspects_seconds"] = round(time.perf_counter() - start, 1)
    start = time.perf_counter()
    find_near_duplicates(features, (70_000, 10_000, 20_000))
    return found | {"near_duplicates_seconds": round(time.perf_counter() - start, 1)}


def _jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


_KINDS = {
    "JPEG, quality 75": lambda image: _jpeg(image, 75),
    "JPEG, quality 30": lambda image: _jpeg(image, 30),
    "resized to 3/4 and back": lambda image: image.resize((image.width * 3 // 4,) * 2).resize(image.size),
    "shifted by a pixel": lambda image: image.transform(image.size, Image.Transform.AFFINE, (1, 0, 1, 0, 1, 0)),
    "15 % brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.15),
    "mirrored": ImageOps.mirror,
}


if __name__ == "__main__":
    main()
