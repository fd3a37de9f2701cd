"""Parameters for a folder of one's own images, chosen by what is in it, each with its reason beside it."""

from __future__ import annotations

import json
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from ltrec import console
from ltrec.data.shot_groups import ShotSettings, shot_groups
from ltrec.errors import UserError
from ltrec.models import timm_names
from ltrec.models.backbones import BackboneSettings, TorchvisionBackbone
from ltrec.models.timm_backbones import TimmBackbone
from ltrec.scaffold.survey import survey

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from ltrec.artifacts import Split
    from ltrec.scaffold.survey import Survey

_DINOV2 = "timm/vit_small_patch14_dinov2.lvd142m"
_SMALL = 96  # pixels; images below it are enlarged threefold and more for a network of photographs
_SHARES: dict[Split, float] = {"val": 0.1, "test": 0.2}
_LEAST = 5  # of a class, where the small ones have it to give
_UPDATES = 2000  # of a network that begins with nothing
_ADAMW = "name: adamw, weight_decay: 0.05, decay_all: false, layer_decay: 0.75"
_LR = 5e-4 / 256  # for each image of a batch, as the field fine-tunes transformers
_COMMENT_AT = 44


@dataclass(frozen=True)
class Wishes:
    """What the user decides in place of what fits; None: what fits."""

    backbone: str | None = None
    weights: str | None = None
    epochs: int | None = None


@dataclass(frozen=True)
class _Line:
    """A line of the params file, and the reason for its value."""

    text: str
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.text:<{_COMMENT_AT - 2}}  # {self.reason}" if self.reason else self.text


def chosen(options: Mapping[str, str]) -> str:
    """Return parameters that fit a folder of images.

    Args:
        options: The folder under `data`, and what the user decides: `backbone`, `weights`, `epochs`.

    Raises:
        UserError: There is no such option, or there are no images to learn from.
    """
    allowed = ("data", "backbone", "weights", "epochs")
    for option in options:
        if option not in allowed:
            names = ", ".join(f"--{name}" for name in allowed)
            raise UserError(
                f"your own images have no such option; allowed: {names}", where=f"--{option.replace('_', '-')}"
            )
    epochs = options.get("epochs")
    if epochs is not None and not re.fullmatch("[0-9]{1,5}", epochs):
        raise UserError(f"must be a whole number of epochs from 0 on, got {epochs}", where="--epochs")
    found = survey(_root(options.get("data", "data")))
    console.say(
        f"init: {len(found.classes)} classes, {found.images:,} images, {min(found.counts):,} to {max(found.counts):,} a"
        f" class, half of them with a short side of {found.short_side} px or less"
    )
    wishes = Wishes(options.get("backbone"), options.get("weights"), None if epochs is None else int(epochs))
    return params_text(found, wishes)


def _root(data: str) -> str:
    """Return a folder of images as the project names it: relative to it, where it lies inside.

    Raises:
        UserError: It is the project's folder, or holds it.
    """
    here, there = Path.cwd(), Path(os.path.abspath(data))  # noqa: PTH100 - links stay as they are
    if here.resolve().is_relative_to(there.resolve()):
        raise UserError(
            f"the project would lie among its own images; begin in the folder above them, got {data}", where="--data"
        )
    return there.relative_to(here).as_posix() if there.is_relative_to(here) else data


def params_text(found: Survey, wishes: Wishes) -> str:
    """Return a params file for the images that were found."""
    most, least = max(found.counts), min(found.counts)
    sections = [
        [
            _Line(f"# {len(found.classes)} classes, {found.images:,} images of {least:,} to {most:,} a class (imbalance"
                  f" factor {most / least:.3g}), short side {found.short_side} px."),
            _Line("# `ltrec params check` checks this file, `ltrec params check --resolved` shows every default."),
            _Line("seed: 0"),
            _Line("device: auto", "the GPU where there is one"),
        ],
        [_Line("prepare:"), _Line(f"  source: {{kind: folder, root: {_scalar(found.root)}}}"),
         *_split(found)],
        [_Line("represent:"), *_represent(found, wishes)],
        [
            _Line("featurize:"),
            _Line("  views: 0", "augmented views of train: each takes as long again"),
        ],
        [
            _Line("rebalance:"), _Line("  joint: {method: joint}", "what the others are compared with"),
            _Line("  ncm: {method: ncm}"), _Line("  crt: {method: crt, epochs: 10, lr: 0.1}"),
            _Line("  tau_norm: {method: tau_norm}"),
            _Line("  lws: {method: lws, epochs: 5, lr: 0.1, weight_decay: 0.0}"),
        ],
        [_Line("evaluate:"), _shots(found)],
        [_Line("export:"), _Line("  variant: champion", "the best on val")],
    ]  # fmt: skip
    return "\n\n".join("\n".join(map(str, section)) for section in sections) + "\n"


def carved(count: int, found: Survey) -> int:
    """Return about how many of a class's images go into val and test: none of a class that is too small to give."""
    shares = [share for split, share in _SHARES.items() if split not in found.given]
    if count <= len(shares) * _floor(found):
        return 0
    return sum(max(math.floor(share * count), _floor(found)) for share in shares)


def _floor(found: Survey) -> int:
    """Return how many images each class gives to val and test at least: half of the smaller ones' go to neither."""
    small = int(np.quantile(found.counts, 0.1, method="lower"))
    return max(1, min(_LEAST, small // 4))


def _split(found: Survey) -> list[_Line]:
    missing = [split for split in _SHARES if split not in found.given]
    if not missing:
        return [_Line("  # val and test are the folders of these names")]
    floor = _floor(found)
    reasons = {"val": "what is chosen is chosen on these", "test": "what is reported is measured on these"}
    return [
        _Line("  split:", "taken from train by content; more images move few"),
        *(
            _Line(
                f"    {split}: {{share: {_SHARES[split]}, least: {floor}}}",
                f"{reasons[split]}, {floor} of a class or more",
            )
            for split in missing
        ),
        _Line("    small_classes: keep", "those with too few are trained on and not tested"),
    ]


def _represent(found: Survey, wishes: Wishes) -> list[_Line]:
    if wishes.backbone is None and wishes.weights is None and found.short_side < _SMALL:
        return _small_images(found, wishes)
    name = wishes.backbone or _DINOV2
    lines = [_Line(f"  backbone: {{name: {_scalar(name)}, weights: {_weights(name, wishes.weights)}}}")]
    if wishes.backbone is None:
        lines.insert(0, _Line("  # DINOv2 has seen 142 million photographs and knows no classes; 88 MB, Apache 2.0"))
    if name == _DINOV2:
        lines.append(_Line("  image: {size: 224}", "the usual; its own 518 px take seven times as long"))
    if found.short_side < _SMALL:
        lines.append(_Line(f"  # its images are enlarged: half of yours have {found.short_side} px or fewer"))
    epochs = wishes.epochs or 0
    if not epochs:
        return [*lines, _Line(
            "  epochs: 0", "the network stays as it is: minutes on a CPU; 30 fine-tune it, with a GPU"
        )]  # fmt: skip
    batch = _batch(found.images)
    return [
        *lines,
        _Line("  augment: {crop: {name: resized, area: [0.25, 1.0]}, flip: true, jitter: 0.2}"),
        _Line(f"  optimizer: {{{_ADAMW}, lr: {_LR * batch:.3g}}}"),
        _Line("  schedule: {name: cosine, warmup_epochs: 1}" if epochs > 1 else "  schedule: {name: cosine}"),
        _Line(f"  epochs: {epochs}"),
        _Line(f"  batch_size: {batch}", f"{max(1, found.images // batch):,} updates an epoch"),
    ]


def _small_images(found: Survey, wishes: Wishes) -> list[_Line]:
    """Return the training of a small network from nothing: networks of photographs see little in small images."""
    size = 16 if found.short_side <= 16 else 32 if found.short_side <= 48 else 64
    batch = _batch(found.images)
    fitting = min(200, max(30, math.ceil(_UPDATES * batch / found.images)))
    epochs = fitting if wishes.epochs is None else wishes.epochs
    return [
        _Line("  backbone: {name: cifar_resnet20}", "small images: a small network, from nothing"),
        _Line(f"  image: {{size: {size}, resize: {size}, interpolation: bicubic}}"),
        _Line(f"  augment: {{crop: {{name: pad, padding: {size // 8}}}, flip: false}}", "true if mirrors do no harm"),
        _Line("  optimizer: {name: sgd, lr: 0.05, weight_decay: 5e-4}"),
        _Line(f"  epochs: {epochs}", f"{epochs * max(1, found.images // batch):,} updates"),
        _Line(f"  batch_size: {batch}"),
    ]  # fmt: skip


def _weights(name: str, wished: str | None) -> str:
    """Return the weights to begin with, as YAML: a published network's own, if no others are wished for."""
    if wished is not None:
        return "null" if wished == "null" else _scalar(wished)
    try:
        backbone = TypeAdapter[Any](BackboneSettings).validate_python({"name": name})
    except ValidationError:  # which is explained where the parameters are checked
        return "null"
    if isinstance(backbone, TimmBackbone):
        return "pretrained" if timm_names.has_weights(name) else "null"
    return "DEFAULT" if isinstance(backbone, TorchvisionBackbone) else "null"


def _scalar(text: str) -> str:
    """Return a text as YAML, in quotes where it needs them."""
    plain = re.fullmatch(r"[A-Za-z_./][A-Za-z0-9_./-]*", text) and text.lower() not in {"null", "true", "false"}
    return text if plain else json.dumps(text, ensure_ascii=False)


def _batch(images: int) -> int:
    return 32 if images < 2000 else 64 if images < 20_000 else 128


def _shots(found: Survey) -> _Line:
    """Return the thresholds of the shot groups: the usual ones, or thirds of the classes where a group has none."""
    trained = np.array([count - carved(count, found) for count in found.counts])
    usual = ShotSettings()
    if _three_groups(trained, usual.many_above, usual.few_below):
        return _Line(f"  shots: {{many_above: {usual.many_above}, few_below: {usual.few_below}}}", "the usual ones")
    few_below, many_above = (max(1, math.ceil(cut)) for cut in np.quantile(trained, [1 / 3, 2 / 3]))
    if not _three_groups(trained, many_above, few_below):
        return _Line(
            f"  shots: {{many_above: {usual.many_above}, few_below: {usual.few_below}}}",
            "the usual ones; the classes are too few or too even for three groups",
        )
    return _Line(
        f"  shots: {{many_above: {many_above}, few_below: {few_below}}}",
        f"thirds: with {usual.many_above} and {usual.few_below} a group would be empty",
    )


def _three_groups(trained: NDArray[np.int64], many_above: int, few_below: int) -> bool:
    return len(set(shot_groups(trained, many_above, few_below))) == 3
