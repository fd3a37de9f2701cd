"""Fit one variant's head on the feature bank, or on the images behind it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ltrec import artifacts, console
from ltrec.errors import UserError
from ltrec.rebalancing.head_training import HeadTrainingSettings
from ltrec.stages import recording

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ltrec.config.params import Params
    from ltrec.models.heads import Head
    from ltrec.models.network import Network
    from ltrec.rebalancing.feature_bank import FeatureBank
    from ltrec.rebalancing.image_features import ImageFeatures
    from ltrec.rebalancing.methods.base import FitResult

_READ: tuple[artifacts.Split, ...] = ("train", "val")


def run(params: Params, variant: str) -> None:
    """Write the variant's head and its train and val figures."""
    from ltrec.compute import device as devices
    from ltrec.compute.precision import fast_float32
    from ltrec.models import heads
    from ltrec.rebalancing.feature_bank import FeatureBank

    layout = artifacts.Layout()
    if variant not in params.rebalance:
        raise UserError(
            f"no such variant: {variant}; allowed: {', '.join(params.rebalance)}", where="params.yaml: rebalance"
        )
    settings = params.rebalance[variant]
    device = devices.resolve(params.device)
    devices.make_deterministic(params.seed)
    with recording.stage_run(params, "rebalance", variant=variant) as record:
        record.params({"rebalance": settings.model_dump(mode="json"), "seed": params.seed})
        representation = artifacts.digest(layout.model)
        train, val = (
            FeatureBank.open(layout.features(split), representation=representation).known() for split in _READ
        )
        with (
            devices.memory_for("the features", where="params.yaml: device", instead="cpu always works"),
            fast_float32(),
        ):
            try:
                fitted = _fit(params, variant, train, val, device)
                head = fitted.head.eval()
                figures = head_figures(head, train, val)
            except UserError as error:
                raise UserError(error.what, where=error.where or f"params.yaml: rebalance.{variant}") from None
        metrics = {
            "method": settings.method,
            **figures,
            "chosen": fitted.chosen,
            "curve": fitted.curve,
        }
        heads.save(head.cpu(), layout.head(variant), representation=representation)
        artifacts.write_json(layout.head_metrics(variant), metrics)
        record.metrics(
            {f"{split}/{name}": value for split, of_split in figures.items() for name, value in of_split.items()}
        )
    chosen = "".join(
        f", {name} {value:.3g}" if isinstance(value, float) else f", {name} {value}"
        for name, value in fitted.chosen.items()
    )
    console.say(
        f"rebalance {variant}: {figures['val']['balanced']:.1%} balanced accuracy on val{chosen}"
        f" → {layout.head(variant)}"
    )


def _fit(params: Params, variant: str, train: FeatureBank, val: FeatureBank, device: torch.device) -> FitResult:
    """Fit the variant on the banks or, where its settings say so, on the images of train."""
    from ltrec.compute import device as devices
    from ltrec.models.network import load, load_head, on_device

    settings, model = params.rebalance[variant], artifacts.Layout().model
    rebalancer, joint = settings.build(params.seed), load_head(model).to(device)
    if not (isinstance(settings, HeadTrainingSettings) and settings.images):
        return rebalancer.fit(train.to(device), val.to(device), joint)
    size = min(settings.batch_size, len(train.labels))
    shown = len(train.labels) // size * size
    console.say(
        f"rebalance {variant}: in each of {settings.epochs} epochs {shown} images go through the frozen network;"
        " Ctrl-C loses this variant's progress and nothing else"
    )
    with (
        devices.memory_for(
            f"{size} images at a time",
            where=f"params.yaml: rebalance.{variant}.batch_size", instead="a smaller one may fit",
        ),
        console.progress(f"rebalance {variant}: images", settings.epochs * shown) as advance,
    ):  # fmt: skip
        images = _images(params, on_device(load(model), device), train, joint.classes, size, advance)
        return rebalancer.fit(images, val.to(device), joint)


def _images(
    params: Params, network: Network, train: FeatureBank, classes: int, batch_size: int, advance: console.Advance
) -> ImageFeatures:
    """The images behind the bank of train, augmented as for the representation."""
    from ltrec.compute import precision
    from ltrec.data.image_lists import read_list
    from ltrec.data.images.device_loader import training_loader
    from ltrec.rebalancing.image_features import ImageFeatures

    layout, represent = artifacts.Layout(), params.represent
    listed = read_list(layout.split_list("train"), classes)
    if not np.array_equal(listed.labels, train.labels.numpy()):
        raise UserError(
            f"holds features of other images than {layout.split_list('train')} lists;"
            " run `ltrec featurize` or `dvc repro`",
            where=str(layout.features("train")),
        )
    augment, device = represent.augment.build(), next(network.parameters()).device
    files = Path(params.prepare.source.root), listed.paths
    return ImageFeatures.of(
        train,
        network,
        training_loader(files, network.geometry, device, batch_size, augment=augment, workers=represent.workers),
        precision=precision.resolve(represent.precision, device),
        on_images=advance,
    )


def head_figures(head: Head, train: FeatureBank, val: FeatureBank) -> dict[str, dict[str, float]]:
    """Accuracy on the plain views of val and train, overall and balanced; on val also the log-likelihood.

    By that, evaluation tells apart variants that are equally accurate on val.
    """
    from ltrec.models.heads import logits_of, predictions_of
    from ltrec.rebalancing.selection import calibrated

    on_val, on_train = logits_of(head, val.plain), predictions_of(head, train.plain)
    of_val, of_train = (bank.labels.to(on_val.device) for bank in (val, train))
    log_likelihood = -calibrated(on_val, of_val)[1]
    return {
        "val": _figures(on_val.argmax(dim=1), of_val) | {"log_likelihood": log_likelihood},
        "train": _figures(on_train, of_train),
    }


def _figures(predicted: Tensor, labels: Tensor) -> dict[str, float]:
    from ltrec.rebalancing.selection import mean_recall

    return {"all": float((predicted == labels).double().mean()), "balanced": mean_recall(predicted, labels)}
