"""The whole network: uint8 images in, logits out; preprocessing is part of it, so that nothing is left to callers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from ltrec import __version__, artifacts
from ltrec.compute.precision import Precision, autocast
from ltrec.data.image_lists import read_classes
from ltrec.data.images.decoding import Geometry
from ltrec.errors import UserError, one_line
from ltrec.models import freezing, heads
from ltrec.models.backbones import BackboneSettings, feature_dim
from ltrec.models.joint_heads import LinearJointHead

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from ltrec.models.joint_heads import JointHeadSettings


class Network(nn.Module):
    """Images uint8 (N, H, W, 3) RGB → logits (N, C).

    Args:
        backbone: Normalised images (N, 3, H, W) → features (N, D).
        head: Features (N, D) → logits (N, C).
        geometry: The square that the images must have.
        mean: The mean of each colour channel, in 0…1.
        std: The standard deviation of each, likewise.

    Attributes:
        weights_license: The licence of the published weights that the backbone began with; None: none is known.
    """

    _gain: Tensor
    _shift: Tensor

    def __init__(
        self, backbone: nn.Module, head: heads.Head, geometry: Geometry, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.geometry = geometry
        self.mean = tuple(mean)
        self.std = tuple(std)
        self.weights_license: str | None = None
        self._frozen: list[str] = []
        # (x/255 − mean)/std as one multiplication and one addition.
        self.register_buffer("_gain", (1 / (255 * torch.tensor(std))).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("_shift", (-torch.tensor(mean) / torch.tensor(std)).reshape(1, 3, 1, 1), persistent=False)

    def freeze(self, frozen: list[str]) -> bool:
        """Hold the named parts of the backbone still, and no others: no gradient, and always evaluation mode.

        Returns whether other parts are held still than before.
        """
        if frozen == self._frozen:
            return False
        self._frozen = frozen
        freezing.freeze(self.backbone, frozen)
        self.train(self.training)
        return True

    def train(self, mode: bool = True) -> Self:
        """Set the mode of all but what is frozen, whose batch norms keep their statistics and whose dropout rests."""
        super().train(mode)
        freezing.hold_still(self.backbone, self._frozen)
        return self

    def features(self, images: Tensor) -> Tensor:
        """Return the features (N, D) of uint8 images (N, H, W, 3)."""
        # Permuted, not copied: the pixels stay channels-last in memory, as convolutions on a GPU want them.
        pixels = images.permute(0, 3, 1, 2).to(self._gain.dtype)
        return self.backbone(pixels * self._gain + self._shift)  # type: ignore[no-any-return]

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))  # type: ignore[no-any-return]


def build(
    backbone: BackboneSettings,
    geometry: Geometry,
    mean: Sequence[float],
    std: Sequence[float],
    classes: int,
    head: JointHeadSettings | None = None,
) -> Network:
    """Return a new network: its backbone is random or pretrained, its head random, and linear if no kind is given."""
    body = backbone.build(geometry.size)
    dim = feature_dim(body, geometry.size, backbone.name)
    network = Network(body, (head or LinearJointHead()).build(classes, dim), geometry, mean, std)
    network.weights_license = backbone.weights_license()
    return network


def on_device(network: Network, device: torch.device) -> Network:
    """Move the network and return it; its convolutions' weights lie channels-last, as the pixels do."""
    return network.to(device).to(memory_format=torch.channels_last)


def synchronised(network: Network) -> Network:
    """Return the network with batch norms that take their statistics over the batches of all ranks.

    Raises:
        UserError: The network is not on a GPU.
    """
    if not next(network.parameters()).is_cuda:
        raise UserError(
            "PyTorch synchronises batch norm between GPUs only; allowed here: false",
            where="params.yaml: represent.sync_batch_norm",
        )
    return nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-any-return, no-untyped-call]


def save(network: Network, path: Path, *, backbone: BackboneSettings, header: dict[str, Any]) -> None:
    """Write the network, how to rebuild it, and whatever else `header` tells of it."""
    content = {
        "version": __version__,
        "backbone": backbone.model_dump(),
        "geometry": network.geometry.model_dump(),
        "mean": network.mean,
        "std": network.std,
        "head": network.head.kind,
        "options": network.head.options(),
    }
    if network.weights_license is not None:
        content["weights_license"] = network.weights_license
    artifacts.save_tensors(path, network.state_dict(), content | header)


def load(path: Path, *, classes: Path | None = None, head: Path | None = None) -> Network:
    """Return the network that `save` wrote, in evaluation mode.

    Args:
        path: The network's file.
        classes: The list of classes that it must have been trained on.
        head: The file of a head that was fitted on its features; it takes the place of the joint head.

    Raises:
        UserError: A file is missing or damaged, the first is no network, its tensors do not fit what its header names,
            it was trained on other classes, or the head is for another network.
    """
    tensors, header = _read(path)
    try:
        settings = TypeAdapter[Any](BackboneSettings).validate_python(header["backbone"])
        # Headers that name no interpolation are from before there was a choice.
        geometry = Geometry(**{"interpolation": "bicubic"} | header["geometry"])
        mean, std = header["mean"], header["std"]
    except (KeyError, TypeError, ValidationError) as error:
        raise UserError(
            f"its header names no network that this ltrec builds: {one_line(error)}", where=str(path)
        ) from None
    joint = _joint_head(tensors, header, path)
    backbone = settings.build(geometry.size, pretrained=False)
    try:
        network = Network(backbone, joint, geometry, mean, std)
        network.load_state_dict(tensors)
    except (RuntimeError, TypeError) as error:
        raise UserError(f"does not fit the network that its header names: {one_line(error)}", where=str(path)) from None
    network.weights_license = header.get("weights_license")
    if classes is not None:
        artifacts.require_made_from(path, header, classes=classes)
        if (listed := len(read_classes(classes))) != joint.classes:
            raise UserError(
                f"knows {joint.classes} classes, but {classes} names {listed}: another dataset", where=str(path)
            )
    if head is not None:
        network.head = heads.load(head, representation=artifacts.digest(path))
    return network.eval()


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors, header = artifacts.load_tensors(path)
    if "backbone" not in header:
        raise UserError("is an artifact of ltrec's, but no network", where=str(path))
    return tensors, header


def _joint_head(tensors: Mapping[str, Tensor], header: Mapping[str, Any], path: Path) -> heads.Head:
    if header.get("head") == heads.UnfittedHead.kind:
        return heads.UnfittedHead(**header["options"])
    state = {name.removeprefix("head."): tensor for name, tensor in tensors.items() if name.startswith("head.")}
    return heads.from_state(state, header, where=str(path))


@torch.inference_mode()
def predict_features(network: Network, images: Tensor, precision: Precision = "fp32") -> Tensor:
    """Return the float32 features (b, D) of images (b, H, W, 3) on the network's device."""
    with autocast(precision, images.device):
        return network.features(images).float()
