"""Writing a network as a checkpoint that the research code loads. C classes, D feature dimensions."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import torch

from ltrec import artifacts, console
from ltrec.errors import UserError
from ltrec.models import heads
from ltrec.models import network as networks
from ltrec.published import content

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from ltrec.config.params import Params


def run(params: Params, output: Path, *, variant: str | None = None) -> None:
    """Write a checkpoint as the research code loads it, with a variant's head.

    Without a variant it has the classifier that the representation was learnt or published with, or that was fitted on
    its features where it was not trained.

    Raises:
        UserError: there is no such variant, or its head has no place in the format.
    """
    layout = artifacts.Layout()
    if output.is_dir():
        raise UserError("is a folder; a file is wanted", where=str(output))
    head = None if variant is None else _head_of(params, layout, variant)
    network = networks.load(layout.model, head=head)
    if isinstance(network.head, heads.UnfittedHead):
        network.head = heads.load(layout.joint, representation=artifacts.digest(layout.model))
    weight, bias, scales = _linear(network.head, where=str(head or layout.model))
    if variant is None:
        facts, classifier = _facts(layout), "the representation's own classifier"
    else:
        facts, classifier = _facts_of_variant(layout, variant), f"the classifier of {variant}"
    tensors = content.Networks(network.backbone, weight, bias, scales).state_dict()
    written = io.BytesIO()  # torch's own errors hide that a disk is full
    torch.save(content.compose(tensors, facts), written)
    with artifacts.replacing(output) as temporary:
        temporary.write_bytes(written.getbuffer())
    for remark in _remarks(network.head):
        console.say(f"checkpoint export: {remark}")
    with_scales = "" if scales is None else " with its scales"
    console.say(f"checkpoint export: the backbone and {classifier}{with_scales} → {output}")


def _head_of(params: Params, layout: artifacts.Layout, variant: str) -> Path:
    if variant not in params.rebalance:
        raise UserError(f"no such variant: {variant}; allowed: {', '.join(params.rebalance)}", where="--variant")
    return artifacts.present(layout.head(variant))


def _linear(head: heads.Head, *, where: str) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return weight (C, D), bias (C,) and scales (C,) or None that give the head's logits, its temperature divided in.

    Raises:
        UserError: the head is not linear.
    """
    if not isinstance(head, heads.LinearHead | heads.ScaledHead):
        raise UserError(
            f"a {head.kind} head does not fit the format, which has a place for weights, biases and scales alone",
            where=where,
        )
    with torch.no_grad():
        zeros = torch.zeros(len(head.weight))
        bias, offset = (zeros if each is None else each for each in (head.bias, head.offset))
        if isinstance(head, heads.LinearHead):
            scales = head.published_scale if isinstance(head, heads.PublishedLwsHead) else None
            return head.weight / head.temperature, (bias + offset) / head.temperature, scales
        scale = head.scale / head.temperature
        if not _spares_nothing(head):
            own = head.scale * bias if head.scale_bias else bias
            return scale[:, None] * head.weight, (own + offset) / head.temperature, None
        return head.weight, bias, scale


def _spares_nothing(head: heads.ScaledHead) -> bool:
    """Return whether the scales go over all of the logits, as those of the format do."""
    return head.scale_bias and head.offset is None


def _remarks(head: heads.Head) -> list[str]:
    """Return what a user should know of how the head was written."""
    remarks = []
    if head.bias is None:
        remarks.append("the head has no bias: written as zeros")
    if isinstance(head, heads.ScaledHead) and not _spares_nothing(head):
        remarks.append("its scales spare a part that the format's do not: multiplied into the weights")
    if head.temperature != 1:
        remarks.append(f"its temperature of {float(head.temperature):.3g} is divided into the weights")
    return remarks


def _facts(layout: artifacts.Layout) -> dict[str, float | None]:
    """Return the facts of the representation: those of its published checkpoint, or of its training's last epoch."""
    header = artifacts.load_tensors(layout.model)[1]
    if "published" in header:
        return dict(header["published"])
    rows = artifacts.read_csv(layout.history) if layout.history.is_file() else []
    if not rows:
        return {}
    last = int(rows[-1]["epoch"])
    return {"epoch": last, "best_epoch": last, "best_acc": float(rows[-1]["val"])}


def _facts_of_variant(layout: artifacts.Layout, variant: str) -> dict[str, float | None]:
    """Return the facts of a variant: its epoch, if it was trained, and its accuracy on val."""
    metrics = artifacts.read_json(layout.head_metrics(variant))
    epoch = metrics["chosen"].get("epoch")
    return {"epoch": epoch, "best_epoch": epoch, "best_acc": metrics["val"]["all"]}
