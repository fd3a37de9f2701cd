"""Importing a checkpoint of the research code as the representation, as if it had been trained here."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

import torch
from pydantic import TypeAdapter

from ltrec import artifacts, console
from ltrec.data.image_lists import read_classes
from ltrec.errors import UserError
from ltrec.models import heads
from ltrec.models import network as networks
from ltrec.models.backbones import BackboneSettings, feature_dim, written_out
from ltrec.models.checkpoints import read_checkpoint
from ltrec.models.tensor_mismatch import COUNTER, tensor_mismatches
from ltrec.models.weights import load_exactly
from ltrec.published import content
from ltrec.stages import recording

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor, nn

    from ltrec.config.params import Params


def run(params: Params, file: Path, *, backbone: str | None = None) -> None:
    """Write `artifacts/represent/` from a published checkpoint, as if `represent` had trained it.

    Args:
        params: The parameters, whose section `represent` gives the backbone and the image's geometry and normalisation.
        file: The checkpoint.
        backbone: The name of a backbone in place of `represent.backbone`.

    Raises:
        UserError: the file is no readable checkpoint, or its tensors do not fit the backbone or the classes.
    """
    layout, image = artifacts.Layout(), params.represent.image.completed()
    size = image.geometry.size
    settings = _settings(backbone) if backbone else params.represent.backbone
    checkpoint = content.parse(read_checkpoint(file), where=str(file))
    body = settings.build(size, pretrained=False)
    head = _fill(body, checkpoint.tensors, size, settings.name, where=str(file))
    classes = len(head.weight)
    if layout.classes.is_file() and (count := len(read_classes(layout.classes))) != classes:
        raise UserError(
            f"its classifier knows {classes} classes, but {layout.classes} names {count}: another dataset",
            where=str(file),
        )
    network = networks.Network(body, head, image.geometry, image.mean, image.std)
    facts = {"file": file.name, "digest": artifacts.digest(file), **checkpoint.facts}
    networks.save(network, layout.model, backbone=settings, header={"published": facts, "classes": None})
    artifacts.write_csv(layout.history, [], artifacts.HISTORY)  # no epoch is known
    with recording.stage_run(params, "represent") as record:
        record.tags({f"published.{name}": value for name, value in facts.items()})
    for remark in _remarks(checkpoint, body):
        console.say(f"checkpoint import: {remark}")
    console.say(f"checkpoint import: {settings.name}, {head.dim} features, {classes} classes → {layout.model}")
    console.say(
        "checkpoint import: go on with `ltrec featurize`, or with DVC: `dvc freeze represent`, then `dvc repro`"
        " (not frozen, it would train over this)"
    )


def _settings(name: str) -> Any:
    """Return a backbone's settings by its name alone."""
    if name not in (known := written_out()):
        similar = difflib.get_close_matches(name, known, n=5) or known[:5]
        raise UserError(
            f"no such backbone: {name}; allowed: {', '.join(similar)} and whatever else `ltrec params schema` lists"
            " under represent.backbone.name",
            where="--backbone",
        )
    return TypeAdapter[Any](BackboneSettings).validate_python({"name": name})


def _fill(body: nn.Module, tensors: Mapping[str, Tensor], size: int, name: str, *, where: str) -> heads.LinearHead:
    """Load a checkpoint's tensors, all of them or none, into the backbone and a new head; return the head."""
    published = tensors.get(content.WEIGHT)
    classes = published.shape[0] if published is not None and published.ndim else 1
    scales = torch.empty(classes) if content.SCALES in tensors else None
    weight, bias = torch.empty(classes, feature_dim(body, size, name)), torch.empty(classes)
    both = content.Networks(body, weight, bias, scales)
    if mismatches := tensor_mismatches(tensors, both.state_dict(), where):
        fitting = _backbones_of(tensors, size)
        hint = f", the tensors are those of {' or '.join(fitting)}" if fitting and name not in fitting else ""
        raise UserError(f"does not fit: represent.backbone is {name}{hint}; {mismatches}", where=where)
    load_exactly(both, tensors, where)
    return heads.LinearHead(weight, bias) if scales is None else heads.PublishedLwsHead(weight, bias, scales)


def _backbones_of(tensors: Mapping[str, Tensor], size: int) -> list[str]:
    """Return the names of the residual networks that have exactly these tensors in their backbone."""

    def shapes(state: Mapping[str, Tensor]) -> dict[str, torch.Size]:
        return {name: tensor.shape for name, tensor in state.items() if not name.endswith(COUNTER)}

    prefix = f"{content.BACKBONE}."
    wanted = shapes({name.removeprefix(prefix): tensors[name] for name in tensors if name.startswith(prefix)})
    with torch.device("meta"):
        return [
            name
            for name in written_out()
            if "res" in name and shapes(_settings(name).build(size, pretrained=False).state_dict()) == wanted
        ]


def _remarks(checkpoint: content.Checkpoint, body: nn.Module) -> list[str]:
    """Return what a user should know of how the checkpoint was taken over."""
    tensors, remarks = checkpoint.tensors, []
    counters = [name for name in body.state_dict() if name.endswith(COUNTER)]
    if absent := sum(f"{content.BACKBONE}.{name}" not in tensors for name in counters):
        remarks.append(f"{absent} of {len(counters)} {COUNTER} were missing and are 0; nothing reads them")
    converted = {str(t.dtype) for name, t in tensors.items() if t.dtype != torch.float32 and not name.endswith(COUNTER)}
    if converted:
        remarks.append(f"{', '.join(sorted(converted))} became float32")
    if checkpoint.left_out:
        remarks.append(f"left out: {console.first_five(checkpoint.left_out, 'left out')}")
    if content.SCALES in tensors:
        remarks.append(
            "an LWS checkpoint: joint is its classifier without the scales; a variant with {method: published} under"
            " params.yaml: rebalance has them"
        )
    return remarks
