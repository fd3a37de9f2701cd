"""The layout of the research code's checkpoints: the state dicts of two networks beside a few facts.

N images, C classes, D feature dimensions.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ltrec import console
from ltrec.errors import UserError, some
from ltrec.models.checkpoints import is_sound
from ltrec.models.weights import strip_prefix

BEST, LATEST = "state_dict_best", "state_dict"
BACKBONE, CLASSIFIER = "feat_model", "classifier"
WEIGHT, SCALES = f"{CLASSIFIER}.fc.weight", f"{CLASSIFIER}.scales"
_FACTS = ("epoch", "best_epoch", "best_acc")


class Networks(nn.Module):
    """Backbone and classifier under the names of the research code; the module only holds their tensors.

    Args:
        backbone: The network from images to features (N, D).
        weight: The classifier's weight, (C, D).
        bias: Its bias, (C,).
        scales: The scales of an LWS classifier, (C,); None for any other.
    """

    def __init__(self, backbone: nn.Module, weight: Tensor, bias: Tensor, scales: Tensor | None) -> None:
        super().__init__()
        classifier = nn.Module()
        classifier.fc = nn.Module()
        classifier.fc.weight, classifier.fc.bias = nn.Parameter(weight), nn.Parameter(bias)
        if scales is not None:
            classifier.scales = nn.Parameter(scales)
        self.add_module(BACKBONE, backbone)
        self.add_module(CLASSIFIER, classifier)


@dataclass(frozen=True)
class Checkpoint:
    """What is in a checkpoint.

    Attributes:
        tensors: The tensors of both networks, by the names of `Networks`.
        facts: Those of `epoch`, `best_epoch` and `best_acc` that are there.
        left_out: The names of what else is there and ltrec has no use for, such as `centroids` or `embed`.
    """

    tensors: dict[str, Tensor]
    facts: dict[str, float | None] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()


def parse(content: object, *, where: str) -> Checkpoint:
    """Return the two state dicts and the facts of a checkpoint's content; keys lose DataParallel's prefix.

    Raises:
        UserError: the state dicts are not there, or hold something else than finite real tensors; `where` names the
            file.
    """
    wanted = f"a dict with {BEST} (or {LATEST}) = {{{BACKBONE}, {CLASSIFIER}}}"
    if not isinstance(content, Mapping):
        raise UserError(f"is no published checkpoint: holds a {type(content).__name__}, not {wanted}", where=where)
    form = BEST if content.get(BEST) is not None else LATEST
    parts = content.get(form)
    if not isinstance(parts, Mapping):
        raise UserError(f"is no published checkpoint: has {_names(content)}; wanted: {wanted}", where=where)
    if set(parts) != {BACKBONE, CLASSIFIER}:
        raise UserError(
            f"is no published checkpoint: its {form} has {_names(parts)}; wanted: {BACKBONE}, {CLASSIFIER}", where=where
        )
    return Checkpoint(
        {
            f"{network}.{name}": tensor
            for network in (BACKBONE, CLASSIFIER)
            for name, tensor in _tensors(parts[network], f"{form}.{network}", where).items()
        },
        {name: _number(content[name]) for name in _FACTS if name in content},
        tuple(str(name) for name, value in content.items() if name not in {form, *_FACTS} and value is not None),
    )


def compose(tensors: Mapping[str, Tensor], facts: Mapping[str, float | None]) -> dict[str, Any]:
    """Return the content that the research code loads: the reverse of `parse`, with DataParallel's prefixes."""
    parts: dict[str, dict[str, Tensor]] = {BACKBONE: {}, CLASSIFIER: {}}
    for name, tensor in tensors.items():
        network, _, key = name.partition(".")
        parts[network][f"module.{key}"] = tensor
    return {**{name: facts.get(name) for name in _FACTS}, BEST: parts, "centroids": None}


def _tensors(state: object, name: str, where: str) -> dict[str, Tensor]:
    if not isinstance(state, Mapping):
        raise UserError(f"{name} is no state dict but a {type(state).__name__}", where=where)
    tensors = {key: value for key, value in state.items() if isinstance(key, str) and isinstance(value, Tensor)}
    wrong = {
        "something else than tensors in it": [key for key in state if key not in tensors],
        "tensors that are not dense real numbers": [key for key, value in tensors.items() if not is_sound(value)],
        "numbers that are not finite": [
            key for key, value in tensors.items() if is_sound(value) and not torch.isfinite(value).all()
        ],
    }
    for what, keys in wrong.items():
        if keys:
            named = console.first_five(keys, f"{where}: {name}: {what}")
            raise UserError(f"{name} has {what}: {named}", where=where)
    return strip_prefix(tensors)


def _names(mapping: Mapping[Any, Any]) -> str:
    """Return the first few of a mapping's keys, for a message."""
    return some([*mapping], 5) or "nothing"


def _number(value: object) -> float | None:
    """Return a plain number for what may be NumPy's or a tensor's; None if it is no finite number."""
    with contextlib.suppress(AttributeError, TypeError, ValueError, RuntimeError):
        value = value.item()  # type: ignore[attr-defined]
    if isinstance(value, int):
        return value
    return value if isinstance(value, float) and math.isfinite(value) else None
