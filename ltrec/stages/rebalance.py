"""Fit one variant's head on the feature bank, or on the images behind it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ltrec import artifacts, console
from ltrec.artifacts import Layout
from ltrec.compute import device as devices
from ltrec.compute import precision
from ltrec.data.image_lists import read_list
from ltrec.data.images.dataset import killed_worker_explained
from ltrec.data.images.device_loader import training_loader
from ltrec.data.images.path_list import compact
from ltrec.errors import UserError
from ltrec.models import heads
from ltrec.models.network import load, on_device
from ltrec.rebalancing.adjusting import Adjustable, calibrated
from ltrec.rebalancing.feature_bank import FeatureBank
from ltrec.rebalancing.head_figures import head_figures
from ltrec.rebalancing.image_features import ImageFeatures
from ltrec.rebalancing.methods.base import HeadTrainingSettings
from ltrec.stages import recording

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ltrec.compute.precision import Precision
    from ltrec.config.params import Params
    from ltrec.data.images.augmentation import AugmentSettings
    from ltrec.models.heads import Head
    from ltrec.rebalancing.methods.base import FitResult, Rebalancer


@killed_worker_explained()
def run(params: Params, variant: str) -> None:
    """Write the variant's head and its train and val figures."""
    layout = Layout()
    if variant not in params.rebalance:
        raise UserError(
            f"no such variant: {variant}; allowed: {', '.join(params.rebalance)}", where="params.yaml: rebalance"
        )
    settings, represent = params.rebalance[variant], params.represent
    device = devices.resolve(params.device)
    with (
        devices.repeatable(params.seed, params.deterministic),
        precision.exact_float32(),
        recording.stage_run(params, "rebalance", variant=variant) as record,
    ):
        record.params({"rebalance": settings.model_dump(mode="json"), "seed": params.seed})
        representation = artifacts.digest(layout.model)
        splits: tuple[artifacts.Split, ...] = ("train", "val")
        train, val = (
            FeatureBank.open(layout.features(split), representation=representation).known() for split in splits
        )
        with (
            devices.memory_for("the features", where="params.yaml: device", instead="cpu always works"),
            precision.fast_float32(),
        ):
            try:
                rebalancer = settings.build(params.seed)
                joint = heads.load(layout.joint, representation=representation).to(device)
                if isinstance(settings, HeadTrainingSettings) and settings.images:
                    fit = _fit_on_images(
                        rebalancer, train, val, joint,
                        variant=variant, root=Path(params.prepare.source.root), augment=represent.augment,
                        workers=represent.workers, epochs=settings.epochs,
                        batch_size=min(settings.batch_size, len(train.labels)),
                        computed=precision.resolve(
                            params.featurize.precision, device, where="params.yaml: featurize.precision"
                        ),
                    )  # fmt: skip
                else:
                    fit = rebalancer.fit(train.to(device), val.to(device), joint)
                adjust = isinstance(settings, Adjustable) and settings.adjust
                head, calibration = calibrated(fit.head.to(device).eval(), train.labels, val, adjust=adjust)
                chosen = fit.chosen | calibration
                figures = head_figures(head, train, val)
            except UserError as error:
                raise UserError(error.what, where=error.where or f"params.yaml: rebalance.{variant}") from None
        heads.save(head.cpu(), layout.head(variant), representation=representation)
        metrics = {"method": settings.method, **figures, "chosen": chosen, "curve": fit.curve}
        artifacts.write_json(layout.head_metrics(variant), metrics)
        record.metrics(
            {f"{split}/{name}": value for split, of_split in figures.items() for name, value in of_split.items()}
        )
    named = "".join(
        f", {name} {value:.3g}" if isinstance(value, float) else f", {name} {value}" for name, value in chosen.items()
    )
    console.say(
        f"rebalance {variant}: {figures['val']['balanced']:.1%} balanced accuracy on val{named}"
        f" → {layout.head(variant)}"
    )


def _fit_on_images(
    rebalancer: Rebalancer,
    train: FeatureBank,
    val: FeatureBank,
    joint: Head,
    *,
    variant: str,
    root: Path,
    augment: AugmentSettings,
    workers: int | None,
    epochs: int,
    batch_size: int,
    computed: Precision,
) -> FitResult:
    """Fit a variant on the images of train, augmented anew in each epoch."""
    layout, device = Layout(), joint.temperature.device
    shown = len(train.labels) // batch_size * batch_size
    console.say(
        f"rebalance {variant}: in each of {epochs} epochs {shown} images go through the frozen network;"
        " Ctrl-C loses this variant's progress and nothing else"
    )
    with (
        devices.memory_for(
            f"{batch_size} images at a time",
            where=f"params.yaml: rebalance.{variant}.batch_size", instead="a smaller one may fit",
        ),
        console.progress(f"rebalance {variant}: images", epochs * shown) as advance,
    ):  # fmt: skip
        network = on_device(load(layout.model), device)
        files, views = (root, _paths(layout, train, joint.classes)), augment.build(network.mean, network.std)
        loader = training_loader(files, network.geometry, device, batch_size, augment=views, workers=workers)
        images = ImageFeatures.of(train, network, loader, precision=computed, on_images=advance)
        return rebalancer.fit(images, val.to(device), joint)


def _paths(layout: Layout, train: FeatureBank, classes: int) -> Sequence[str]:
    """Return the paths of the images behind the bank of train."""
    listed = read_list(layout.split_list("train"), classes)
    train.require_images_of(listed, layout.split_list("train"), where=str(layout.features("train")))
    return compact(listed).paths
