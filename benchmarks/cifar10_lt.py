"""CIFAR-10-LT (IF 100) by ltrec's recipe, beside the published figures; prints a table and JSON.

The images are JPEG copies of CIFAR-10's, which costs some accuracy against the original arrays. With a GPU the recipe
runs as it is: 200 epochs. Without one it is shortened to 15, which shows how the methods stand to each other and not
how good they get; the result is marked so.

Beside each of cRT and LWS on the feature bank stands the same method as the paper trains it, on augmented images
that run through the frozen network in each epoch: what the shortcut costs, or gains.
"""

from __future__ import annotations

import argparse
import json
import sys
import tarfile
import tempfile
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

import torch
from machine import ROOT, machine
from pipeline import GROUPS, run_stages

from ltrec import artifacts, console, process
from ltrec.config import params, recipes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ltrec.config.params import Params

_ARCHIVE = ROOT.parent / "shared" / "datasets" / "cifar10-jpeg.tar.xz"
_SHORT = 15
_AGREE = 0.005
_IN_TURN = (("joint", "tau_norm"), ("joint", "lws"), ("tau_norm", "crt"), ("lws", "crt"))


def main() -> None:
    gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, default=_ARCHIVE, metavar="ARCHIVE", help="of CIFAR-10 as image files")
    parser.add_argument("--epochs", type=int, help=f"of the representation (default: 200 with a GPU, else {_SHORT})")
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0 … N-1 (default: 3)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the JSON there, too")
    options = parser.parse_args()
    if not options.images.is_file():
        parser.error(f"{options.images}: no such file; it must hold train/<class>/ and test/<class>/")

    process.share_cores()
    console.set_verbosity(console.Verbosity.QUIET)
    recipe = recipes.find("cifar10-lt")
    settings = _settings(recipe, options.epochs or (200 if gpu else _SHORT))
    with tempfile.TemporaryDirectory(prefix="ltrec-cifar-") as scratch:
        folder = Path(scratch)
        with tarfile.open(options.images) as archive:
            archive.extractall(folder / "data", filter="data")
        about = {
            "machine": machine() | {"gpu": torch.cuda.get_device_name() if gpu else None},
            "images": "JPEG copies of CIFAR-10 (lossy)",
            "epochs": settings.represent.epochs,
            "full_recipe": settings.represent.epochs == 200,
        }
        published, per_seed = dict(recipe.aims[0].figures), {}
        for seed in range(options.seeds):
            per_seed[str(seed)] = run_stages(folder / f"seed-{seed}", folder / "data", settings, seed=seed)
            result = about | {"per_seed": per_seed} | _summary(per_seed, published)
            text = json.dumps(result, indent=2) + "\n"
            if options.output:  # after each seed: the next takes long
                artifacts.write_text(options.output, text)
            _show(result, published)
    sys.stdout.write(text)


def _settings(recipe: recipes.Recipe, epochs: int) -> Params:
    """The recipe with so many epochs, and with cRT and LWS on images beside those on features."""
    settings = params.parse(recipe.text({"imbalance_factor": "100"}))
    by_images = {
        f"{name}_images": settings.rebalance[name].model_copy(update={"images": True}) for name in ("crt", "lws")
    }
    return settings.model_copy(
        update={
            "represent": settings.represent.model_copy(update={"epochs": epochs}),
            "rebalance": settings.rebalance | by_images,
        }
    )


def _summary(per_seed: Mapping[str, Any], published: Mapping[str, float]) -> dict[str, Any]:
    """Means over the seeds, and what they are held against."""
    variants = [name for name in per_seed["0"] if name != "champion"]
    # With the usual shot groups CIFAR-10-LT has no few-shot class.
    groups = [group for group in GROUPS if per_seed["0"]["joint"][group] is not None]
    mean = {name: {group: fmean(of[name][group] for of in per_seed.values()) for group in groups} for name in variants}
    spread = (
        {name: stdev(of[name]["all"] for of in per_seed.values()) for name in variants} if len(per_seed) > 1 else {}
    )
    gaps = {name: mean[name]["all"] - mean[f"{name}_images"]["all"] for name in ("crt", "lws")}
    return {
        "mean": mean,
        "deviation_of_all": spread,
        "published_all": {name: value / 100 for name, value in published.items()},
        "order": {f"{low} < {high}": mean[low]["all"] < mean[high]["all"] for low, high in _IN_TURN},
        "features_minus_images": gaps,
        "features_agree_with_images": {name: abs(gap) <= _AGREE for name, gap in gaps.items()},
    }


def _show(result: Mapping[str, Any], published: Mapping[str, float]) -> None:
    print(f"CIFAR-10-LT, IF 100, {result['epochs']} epochs, {len(result['per_seed'])} seed(s), JPEG", file=sys.stderr)
    if not result["full_recipe"]:
        print("shortened: only the order of the methods can be read from it", file=sys.stderr)
    for name, figures in result["mean"].items():
        beside = f"   published (200 epochs) {published[name]:.1f}" if name in published else ""
        shown = "  ".join(f"{group} {100 * value:5.1f}" for group, value in figures.items())
        print(f"{name:12s} {shown}{beside}", file=sys.stderr)


if __name__ == "__main__":
    main()
