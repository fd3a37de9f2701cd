"""What JPEG costs on small images: the same long-tailed images, once lossless and once as JPEGs, in one recipe.

CIFAR-10 is at hand as JPEG files of 32 px (quality 75, colours at half the resolution). Averaged to 16 px they lose
most of their artefacts; written as PNG, and as JPEG of the same quality, they tell what one JPEG compression takes from
images of that size, and so about how far figures on the JPEG copies lie below those on the original arrays. At 16 px a
block of 8 × 8 pixels is a larger part of the image than at 32: it is the upper end.

Both run through ResNet-32 with the settings of the recipe cifar10-lt and fewer epochs, on the same images, classes,
seed and cut (IF 98, 100 val images a class before it). A second call goes on where the first was killed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

from machine import ROOT, machine
from PIL import Image
from ruamel.yaml import YAML

from ltrec import artifacts
from ltrec.config import recipes

_ARCHIVE = ROOT.parent / "shared" / "datasets" / "cifar10-jpeg.tar.xz"
_PIXELS, _VAL = 16, 100
_COUNTS = [int(4900 * 98 ** (-rank / 9)) for rank in range(10)]
_KINDS: dict[str, dict[str, Any]] = {"png": {}, "jpg": {"quality": 75, "subsampling": 2}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, default=_ARCHIVE, metavar="ARCHIVE", help="of CIFAR-10 as image files")
    parser.add_argument("--folder", type=Path, default=ROOT / ".ltrec" / "jpeg-cost", help="where the projects lie")
    parser.add_argument("--epochs", type=int, default=70, help="of the representation (default: 70)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the JSON there, too")
    options = parser.parse_args()
    _write_images(options.images, options.folder)
    found = {kind: _run(options.folder / kind, options.epochs) for kind in _KINDS}
    lost = {
        name: round(figures["balanced"] - found["jpg"][name]["balanced"], 4) for name, figures in found["png"].items()
    }
    result = {"machine": machine(), "pixels": _PIXELS, "epochs": options.epochs} | found | {"lost_to_jpeg": lost}
    text = json.dumps(result, indent=2) + "\n"
    if options.output:
        artifacts.write_text(options.output, text)
    sys.stdout.write(text)


def _write_images(archive: Path, folder: Path) -> None:
    """Write the images of both kinds, those of a class cut to its count in the order of their names."""
    source = folder / "source"
    if not source.is_dir():
        with tarfile.open(archive) as content:
            content.extractall(folder / "source.part", filter="data")
        (folder / "source.part").rename(source)
    for count, name in zip(_COUNTS, sorted(path.name for path in (source / "train").iterdir()), strict=True):
        train, test = (sorted((source / split / name).iterdir()) for split in ("train", "test"))
        for split, files in (("train", train[:count]), ("val", train[-_VAL:]), ("test", test)):
            for file in files:
                targets = {
                    kind: folder / kind / "data" / split / name / f"{file.stem}.{kind}" for kind in _KINDS
                }  # fmt: skip
                if all(target.is_file() for target in targets.values()):
                    continue
                image = Image.open(file).convert("RGB").resize((_PIXELS, _PIXELS), Image.Resampling.BOX)
                for kind, target in targets.items():
                    target.parent.mkdir(parents=True, exist_ok=True)
                    image.save(target, **_KINDS[kind])


def _run(folder: Path, epochs: int) -> dict[str, Any]:
    """Run the recipe on one kind of images, and return each variant's figures."""
    yaml = YAML()
    content = yaml.load(recipes.find("cifar10-lt").text({"imbalance_factor": "100"}))
    content["prepare"] = {"source": {"kind": "folder", "root": "data"}}
    content["represent"]["image"] |= {"size": _PIXELS, "resize": _PIXELS}
    content["represent"]["augment"]["crop"]["padding"] = _PIXELS // 8
    content["represent"] |= {"epochs": epochs, "precision": "bf16", "workers": 0}
    content["tracking"] = {"enabled": False}
    with (folder / "params.yaml").open("w", encoding="utf-8") as file:
        yaml.dump(content, file)
    with (folder / "log.txt").open("a", encoding="utf-8") as log:
        subprocess.run(
            [sys.executable, "-m", "ltrec", "run"], cwd=folder, env=dict(os.environ), stdout=log, stderr=log, check=True
        )
    figures = artifacts.read_json(folder / "artifacts/evaluate/metrics.json")
    return {name: {key: figures[name][key] for key in ("balanced", "nll", "ece")} for name in content["rebalance"]}


if __name__ == "__main__":
    main()
