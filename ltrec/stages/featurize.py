"""Push every image through the backbone once a view, and see to the joint head; the rest works on these alone."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ltrec import artifacts, console, profiling, tracking
from ltrec.artifacts import SPLITS, Layout
from ltrec.compute import device as devices
from ltrec.compute import distributed, precision
from ltrec.data.image_lists import read_classes, read_list
from ltrec.data.images.dataset import killed_worker_explained
from ltrec.data.images.path_list import compact
from ltrec.errors import UserError
from ltrec.models import heads
from ltrec.models import network as networks
from ltrec.rebalancing import feature_bank
from ltrec.rebalancing.feature_bank import FeatureBank
from ltrec.rebalancing.featurizing import fill, view_loaders
from ltrec.stages import recording
from ltrec.training import resume

if TYPE_CHECKING:
    from ltrec.config.params import Params


@killed_worker_explained()
def run(params: Params, *, profile: bool = False) -> None:
    """Write the feature banks of train, val and test, and the joint head that all methods begin with.

    Args:
        params: The parameters.
        profile: Whether to write where the time goes.
    """
    device, settings, root = devices.resolve(params.device), params.featurize, Path(params.prepare.source.root)
    layout = Layout()
    with (
        devices.repeatable(params.seed, params.deterministic),
        precision.exact_float32(),
        distributed.joined(device) as world,
        profiling.recording("featurize", device, wanted=profile and world.first),
        recording.stage_run(params, "featurize") if world.first else contextlib.nullcontext(tracking.Run()) as record,
    ):
        computed = precision.resolve(settings.precision, device, where="params.yaml: featurize.precision")
        record.params({"featurize": settings.model_dump(mode="json") | {"precision": computed}})
        network = networks.load(layout.model, classes=layout.classes, images=layout.split_digest("train"))
        representation = artifacts.digest(layout.model)
        if world.first:
            # This stage starts when DVC has the network: the training that made it need not be resumed any more.
            resume.sweep("represent", taken=representation)
        with devices.memory_for(
            f"{settings.batch_size} images at a time",
            where="params.yaml: featurize.batch_size", instead="a smaller one may fit",
        ):  # fmt: skip
            network = networks.on_device(network, device)
            augment = params.represent.augment.build(network.mean, network.std)
            classes = len(read_classes(layout.classes))
            for split in SPLITS:
                listed = compact(read_list(layout.split_list(split), classes, unknown=split != "train"))
                loaders = view_loaders(
                    (root, listed.paths), network.geometry, device, settings.batch_size, settings.workers, world,
                    augment=augment, augmented_views=settings.views if split == "train" else 0,
                )  # fmt: skip
                made_from = {"representation": representation, "images": artifacts.digest(layout.split_digest(split))}
                views, dim, path = len(loaders), network.head.dim, layout.features(split)
                writing = feature_bank.writing(
                    path, listed.labels, views=views, dim=dim, header=made_from | {"split": split}
                )
                with writing if world.first else contextlib.nullcontext() as bank:
                    fill(bank, loaders, network, computed, split, len(listed), settings.batch_size, params.seed, world)
                console.say(f"featurize: {len(listed)} {split} images, {views} view(s) of {dim} features → {path}")
            if world.first:
                _write_joint_head(params, network.head, layout, representation, device)


def _write_joint_head(
    params: Params, head: heads.Head, layout: Layout, representation: str, device: torch.device
) -> None:
    """Write the head that every rebalancing method begins with: the network's or, if it has none, one fitted here."""
    if isinstance(head, heads.UnfittedHead):
        head = _fitted_head(params, head, layout, device)
    else:
        counts = read_list(layout.split_list("train"), head.classes).counts(head.classes)
        head.prior_power = params.represent.prior_power(counts)
    heads.save(head.cpu(), layout.joint, representation=representation)


def _fitted_head(params: Params, place: heads.UnfittedHead, layout: Layout, device: torch.device) -> heads.Head:
    """Return a joint head that is fitted on the feature bank, on the natural distribution of train."""
    train, val = (FeatureBank.open(layout.features(split)).known().to(device) for split in ("train", "val"))
    with torch.random.fork_rng(devices=[]):  # whatever was drawn before, as the backbone's weights were
        torch.default_generator.manual_seed(params.seed)
        head = params.represent.head.build(place.classes, place.dim).to(device)
    try:
        with precision.fast_float32():
            chosen = params.featurize.probe.fit(head, train, val, seed=params.seed)
    except UserError as error:
        raise UserError(error.what, where=error.where or "params.yaml: featurize.probe") from None
    best = ", ".join(f"{name} {value:.3g}" for name, value in chosen.items())
    console.say(f"featurize: joint classifier fitted on the features, {best} chosen on val → {layout.joint}")
    return head
