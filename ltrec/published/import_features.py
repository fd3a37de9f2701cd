"""Importing a feature dump of the research code as a split's feature bank. N images, D feature dimensions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ltrec import artifacts, console
from ltrec.data.image_lists import read_classes, read_list
from ltrec.errors import UserError, some
from ltrec.models import heads
from ltrec.models import network as networks
from ltrec.models.heads import predictions_of
from ltrec.published.pickles import read_pickle
from ltrec.rebalancing import feature_bank as features
from ltrec.rebalancing.selection import mean_recall

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from ltrec.artifacts import Layout, Split
    from ltrec.data.image_lists import ImageList
    from ltrec.models.heads import Head

_KEYS = ("feats", "labels", "idxs")
# The least share of the way from chance to perfection: a classifier on its own network's features is far beyond it.
_LEAST_SKILL = 0.1


def run(file: Path, split: Split) -> None:
    """Write `artifacts/featurize/<split>.safetensors`, in the order of the split's list.

    Args:
        file: A pickle of a dict with `feats` (N, D), `labels` (N,) and `idxs` (N,): which image of the list a row is.
        split: The split that the images are of.

    Raises:
        UserError: the file is no readable dump, its rows are not one for each image, its labels are not the list's, or
            the network in `artifacts/represent/` cannot have given its features.
    """
    layout, where = artifacts.Layout(), str(file)
    if not layout.model.is_file():
        raise UserError(
            "no such file; features need the network that they are of: `ltrec checkpoint import` comes first",
            where=str(layout.model),
        )
    feats, labels, idxs = _arrays(read_pickle(file), where, file.stat().st_size)
    head = _joint_head(layout)
    listed = _listed(layout, split)
    if listed is not None and len(listed) != len(labels):
        raise UserError(f"has {len(labels):,} images, {layout.split_list(split)} lists {len(listed):,}", where=where)
    _check_rows(idxs, where)
    _check_features(feats, idxs, head, layout, where)
    of_image = labels[np.argsort(idxs)]
    _check_labels(of_image, head.classes, layout, split, where)
    if listed is not None:
        _check_listed(of_image, listed, layout.split_list(split), where)
    header: dict[str, object] = {
        "representation": artifacts.digest(layout.model),
        "images": None,
        "split": split,
        "published": file.name,
    }
    path = layout.features(split)
    with features.writing(path, of_image, views=1, dim=head.dim, header=header) as bank:
        bank[0, idxs] = feats
    heads.save(head, layout.joint, representation=artifacts.digest(layout.model))
    known = labels != artifacts.UNKNOWN
    accuracy = mean_recall(predictions_of(head, torch.from_numpy(feats[known])), torch.from_numpy(labels[known]))
    chance = 1 / len(np.unique(labels[known]))
    if accuracy < chance + _LEAST_SKILL * (1 - chance):
        console.warn(
            f"{where}: the network's own classifier gets only {accuracy:.1%} balanced accuracy on these features: are"
            " they of another network, or of another order of images?"
        )
    console.say(
        f"features import: {len(labels)} {split} images of {head.dim} features, {accuracy:.1%} balanced accuracy by the"
        f" network's own classifier → {path}"
    )
    console.say(
        "features import: when all three splits are there, go on with `ltrec rebalance`, or with DVC:"
        " `dvc freeze represent featurize`, then `dvc repro` (not frozen, they would be made anew)"
    )


def _joint_head(layout: Layout) -> Head:
    head = networks.load(layout.model).head
    if isinstance(head, heads.UnfittedHead):
        raise UserError(
            "has no classifier to hold the features against (represent.epochs: 0); `ltrec featurize` makes features of"
            " its own and fits one",
            where=str(layout.model),
        )
    # A published classifier learnt from the natural distribution, unless it is cRT's, which its file does not say.
    head.prior_power = 1.0
    return head


def _arrays(content: object, where: str, size: int) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """Return the feats (N, D), labels (N,) and idxs (N,) of a dump of `size` bytes."""
    if not isinstance(content, Mapping) or not set(_KEYS) <= content.keys():
        held = some([*content], 5) if isinstance(content, Mapping) else f"a {type(content).__name__}"
        raise UserError(f"is no feature dump: holds {held or 'nothing'}; wanted: {', '.join(_KEYS)}", where=where)
    feats, labels, idxs = (_array(content[key], key, where, size) for key in _KEYS)
    if feats.ndim != 2 or labels.shape != (len(feats),) or idxs.shape != (len(feats),) or not feats.size:
        shapes = f"feats {feats.shape}, labels {labels.shape}, idxs {idxs.shape}"
        raise UserError(f"{shapes}; wanted: (N, D), (N,), (N,)", where=where)
    for name, array in (("labels", labels), ("idxs", idxs)):
        if not np.array_equal(array, np.round(array)):
            raise UserError(f"{name} are not whole numbers", where=where)
    return feats.astype(np.float32, copy=False), labels.astype(np.int64), idxs.astype(np.int64)


def _array(value: Any, name: str, where: str, size: int) -> NDArray[Any]:
    if isinstance(value, list | tuple):
        # Every number takes a byte of the file or more, unless rows are the same list or array again and again.
        if sum(len(row) if isinstance(row, list | tuple) else np.size(row) for row in value) > size:
            raise UserError(f"{name} has more numbers than the file has bytes", where=where)
        cells = (cell for row in value if isinstance(row, list | tuple) for cell in row)
        if any(isinstance(cell, list | tuple) or (hasattr(cell, "__array__") and np.ndim(cell)) for cell in cells):
            raise UserError(f"{name} has more than two dimensions", where=where)
    try:
        array = np.asarray(value)
    except (ValueError, TypeError):  # such as a list of rows of different lengths
        array = np.empty(0, dtype=object)
    if array.dtype.kind not in "iuf":
        raise UserError(f"{name} is no array of real numbers but one of {array.dtype}", where=where)
    return array


def _check_rows(idxs: NDArray[np.int64], where: str) -> None:
    """Refuse rows that are not one for each image."""
    count = len(idxs)
    if (outside := np.flatnonzero((idxs < 0) | (idxs >= count))).size:
        raise UserError(
            f"idxs[{outside[0]}] is {idxs[outside[0]]}, but with {count} rows images are 0 … {count - 1}"
            f" ({outside.size} such rows in all)",
            where=where,
        )
    if (repeated := np.flatnonzero(np.bincount(idxs, minlength=count) > 1)).size:
        rows = np.flatnonzero(idxs == repeated[0])
        raise UserError(
            f"image {repeated[0]} has rows {rows[0]} and {rows[1]}; wanted: one row an image"
            f" ({repeated.size} such images in all)",
            where=where,
        )


def _check_features(
    feats: NDArray[np.float32], idxs: NDArray[np.int64], head: Head, layout: Layout, where: str
) -> None:
    if feats.shape[1] != head.dim:
        raise UserError(
            f"has features of {feats.shape[1]} dimensions, the network in {layout.model} gives {head.dim}", where=where
        )
    if (rows := np.flatnonzero(~np.isfinite(feats).all(axis=1))).size:
        raise UserError(
            f"has features that are not finite, of {rows.size} images, such as image {idxs[rows[0]]}", where=where
        )


def _check_labels(labels: NDArray[np.int64], classes: int, layout: Layout, split: Split, where: str) -> None:
    """Refuse labels (N,), by image, that are none of the network's classes; but for train -1 is allowed beside them."""
    lowest = 0 if split == "train" else artifacts.UNKNOWN
    outside = np.flatnonzero((labels < lowest) | (labels >= classes))
    if outside.size or (labels == artifacts.UNKNOWN).all():
        first = outside[0] if outside.size else 0
        raise UserError(
            f"image {first} has label {labels[first]}; the network in {layout.model} knows {classes} classes,"
            f" 0 … {classes - 1}",
            where=where,
        )


def _listed(layout: Layout, split: Split) -> ImageList | None:
    """Return the list that `prepare` wrote, if it has."""
    if not (path := layout.split_list(split)).is_file():
        return None
    return read_list(path, len(read_classes(layout.classes)), unknown=split != "train")


def _check_listed(labels: NDArray[np.int64], listed: ImageList, path: Path, where: str) -> None:
    if (differing := np.flatnonzero(listed.labels != labels)).size:
        first = differing[0]
        raise UserError(
            f"image {first} has label {labels[first]}, but {path}:{first + 1} says {listed.labels[first]}"
            f" ({listed.paths[first]}); {differing.size} of {len(labels)} differ",
            where=where,
        )
