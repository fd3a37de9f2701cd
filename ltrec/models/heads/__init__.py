"""Heads: the table of their kinds, and how they are saved and loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from ltrec import artifacts
from ltrec.errors import UserError, one_line
from ltrec.models.heads.base import Head, logits_in_blocks, logits_of, predictions_of
from ltrec.models.heads.cosine import CosineHead
from ltrec.models.heads.disalign import DisAlignHead
from ltrec.models.heads.ensemble import EnsembleHead
from ltrec.models.heads.knn import KnnHead
from ltrec.models.heads.linear import LinearHead, PublishedLwsHead, ScaledHead
from ltrec.models.heads.nearest_mean import NearestMeanHead
from ltrec.models.heads.unfitted import UnfittedHead

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

__all__ = [
    "CosineHead", "DisAlignHead", "EnsembleHead", "Head", "KnnHead", "LinearHead", "NearestMeanHead",
    "PublishedLwsHead", "ScaledHead", "UnfittedHead",
    "from_state", "load", "logits_in_blocks", "logits_of", "predictions_of", "save",
]  # fmt: skip

KINDS: dict[str, type[Head]] = {
    head.kind: head
    for head in (
        LinearHead,
        PublishedLwsHead,
        ScaledHead,
        CosineHead,
        NearestMeanHead,
        KnnHead,
        DisAlignHead,
        EnsembleHead,
    )
}
"""Every head that gives logits, by the name that its header has."""
_MATRICES = {"weight": "(C, D)", "means": "(C, D)", "exemplars": "(N, D)"}


def save(head: Head, path: Path, *, representation: str) -> None:
    """Write a head, how to rebuild it, and the digest of the network whose features it takes."""
    header = {
        "head": head.kind, "options": head.options(), "prior_power": head.prior_power, "representation": representation,
    }  # fmt: skip
    artifacts.save_tensors(path, head.state_dict(), header)


def load(path: Path, *, representation: str) -> Head:
    """Return the head that `save` wrote.

    Raises:
        UserError: The file is missing, damaged, no head, or one for the features of another network.
    """
    tensors, header = artifacts.load_tensors(path)
    head = from_state(tensors, header, where=str(path))
    artifacts.require_made_from(path, header, representation=representation)
    return head


def from_state(tensors: Mapping[str, Tensor], header: Mapping[str, Any], *, where: str) -> Head:
    """Return the head with this state dict, in evaluation mode.

    Args:
        tensors: The state dict.
        header: The head's kind under `head`, its options under `options`, and maybe its `prior_power`.
        where: What was read, for the message.

    Raises:
        UserError: The kind is unknown, or the tensors are not those of such a head.
    """
    kind = KINDS.get(str(header.get("head")))
    if kind is None:
        raise UserError(f"is an artifact of ltrec's, but no head of a known kind ({', '.join(KINDS)})", where=where)
    for name, shape in _MATRICES.items():
        if name in tensors and tensors[name].ndim != 2:
            raise UserError(f"its {name} must be {shape}, got {tuple(tensors[name].shape)}", where=where)
    try:
        head = kind.of_state(tensors, header["options"], where=where).eval()
        head.offset = tensors.get("offset")
        head.load_state_dict(dict(tensors))
        head.prior_power = float(header.get("prior_power", 0.0))
        with torch.inference_mode():
            head(torch.zeros(1, head.dim))  # fails where its tensors do not fit each other
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(
            f"no {kind.kind} head is in it, though its header says so: {one_line(error)}", where=where
        ) from None
    return head
