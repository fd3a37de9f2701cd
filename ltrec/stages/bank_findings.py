"""What the feature banks tell of the images: suspected label errors, and near-duplicates across splits."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import torch

from ltrec import artifacts, console
from ltrec.artifacts import SPLITS
from ltrec.data.image_lists import read_list
from ltrec.data.images.repair import kept_truncated
from ltrec.evaluation.contact_sheet import draw_pairs
from ltrec.evaluation.near_duplicates import find_near_duplicates
from ltrec.rebalancing.feature_bank import FeatureBank
from ltrec.rebalancing.leave_one_out import find_suspects

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from ltrec.artifacts import Layout
    from ltrec.evaluation.contact_sheet import Captioned
    from ltrec.evaluation.near_duplicates import Pair

TABLES = "suspects.csv", "near_duplicates.csv"
"""What is written beside the metrics."""
_SUSPECT_COLUMNS = ("rank", "path", "split", "label", "guess", "confidence", "shot")
_PAIR_COLUMNS = ("rank", "path", "split", "label", "other_path", "other_split", "other_label", "similarity")
_MOST_ROWS = 1000  # of a table, which lies in Git
_MOST_PICTURES = 36  # pairs
_NAMED = 3


@dataclass(frozen=True)
class _Images:
    """The N known images of all splits, split after split, each path once."""

    paths: tuple[str, ...]
    splits: tuple[str, ...]
    labels: Tensor
    """(N,)."""
    features: Tensor
    """Those of the evaluation transform, (N, D)."""


def write(layout: Layout, root: Path, names: Sequence[str], groups: NDArray[np.str_]) -> None:
    """Write both tables and the pictures of near-duplicates, and say what was found.

    Args:
        layout: Where the artifacts lie.
        root: The folder that the paths are relative to.
        names: The class names, C.
        groups: Each class's shot group, (C,).

    Raises:
        UserError: A bank is missing, damaged, or of other images than its list.
    """
    images = _read(layout, len(names))
    _write_suspects(images, layout.evaluation / TABLES[0], names, groups)
    pairs = find_near_duplicates(images.features, [images.splits.count(split) for split in SPLITS])
    rows = [_pair_row(rank, pair, images, names) for rank, pair in enumerate(pairs[:_MOST_ROWS], start=1)]
    _write_table(layout.evaluation / TABLES[1], _PAIR_COLUMNS, rows)
    pictures = layout.plots / "images" / "near_duplicates.png"
    pictures.unlink(missing_ok=True)
    if pairs:
        shown = [
            _pictured(rank, pair, images, root, names) for rank, pair in enumerate(pairs[:_MOST_PICTURES], start=1)
        ]
        draw_pairs(shown, pictures, truncated={root / path for path in kept_truncated(layout.stats)})
        _warn_of(pairs, images, pictures)


def _read(layout: Layout, classes: int) -> _Images:
    paths: list[str] = []
    splits: list[str] = []
    labels, features, seen = [], [], set[str]()
    network = FeatureBank.open(layout.features("test")).header.get("representation")
    of_one_network = {} if network is None else {"representation": network}  # None: of imported features
    for split in SPLITS:
        listed, file = read_list(layout.split_list(split), classes, unknown=split != "train"), layout.features(split)
        bank = FeatureBank.open(file, images=layout.split_digest(split), **of_one_network)
        bank.require_images_of(listed, layout.split_list(split), where=str(file))
        # Val may be the test images on purpose, and no image is a duplicate of itself.
        kept = (listed.labels != artifacts.UNKNOWN) & np.array([path not in seen for path in listed.paths])
        known = listed.where(kept)
        seen.update(known.paths)
        paths += known.paths
        splits += [split] * len(known)
        labels.append(bank.labels[torch.from_numpy(kept)])
        # As it lies in the file, where all are kept: banks may be large.
        features.append(bank.plain if kept.all() else bank.plain[torch.from_numpy(kept)])
    return _Images(tuple(paths), tuple(splits), torch.cat(labels), torch.cat(features))


def _write_suspects(images: _Images, file: Path, names: Sequence[str], groups: NDArray[np.str_]) -> None:
    found = find_suspects(images.features, images.labels)
    listed = zip(found.rows.tolist(), found.guesses.tolist(), found.confidences.tolist(), strict=True)
    rows = [
        {
            "rank": rank, "path": images.paths[row], "split": images.splits[row], "label": names[label],
            "guess": names[guess], "confidence": confidence, "shot": str(groups[label]),
        }
        for rank, (row, guess, confidence) in enumerate(islice(listed, _MOST_ROWS), start=1)
        for label in [int(images.labels[row])]
    ]  # fmt: skip
    _write_table(file, _SUSPECT_COLUMNS, rows)
    alone = len(images.labels) - found.judged
    console.say(
        f"evaluate: {len(found.rows):,} of {found.judged:,} images are nearer to another class than to their own"
        + (f", {alone:,} alone in their class were not judged" if alone else "")
        + f"; the most suspect labels → {file}"
    )


def _pair_row(rank: int, pair: Pair, images: _Images, names: Sequence[str]) -> dict[str, object]:
    first, second, similarity = pair
    return {
        "rank": rank,
        "path": images.paths[first], "split": images.splits[first], "label": names[int(images.labels[first])],
        "other_path": images.paths[second], "other_split": images.splits[second],
        "other_label": names[int(images.labels[second])], "similarity": similarity,
    }  # fmt: skip


def _pictured(rank: int, pair: Pair, images: _Images, root: Path, names: Sequence[str]) -> list[Captioned]:
    def captioned(row: int) -> Captioned:
        path = images.paths[row]
        return root / path, f"{rank}. {images.splits[row]}: {names[int(images.labels[row])]}", path

    return [captioned(pair.first), captioned(pair.second)]


def _warn_of(pairs: Sequence[Pair], images: _Images, pictures: Path) -> None:
    named = [
        f"{images.paths[pair.first]} in {images.splits[pair.first]}"
        f" ~ {images.paths[pair.second]} in {images.splits[pair.second]}"
        for pair in pairs[:_NAMED]
    ]
    more = f" and {len(pairs) - _NAMED:,} more" if len(pairs) > _NAMED else ""
    console.warn(
        f"evaluate: near-duplicates across splits, by their features: {len(pairs):,} ({', '.join(named)}{more});"
        f" see {pictures}"
    )


def _write_table(file: Path, columns: Sequence[str], rows: Sequence[Mapping[str, object]]) -> None:
    """Write a table; one without rows keeps its header."""
    if rows:
        artifacts.write_csv(file, rows)
    else:
        artifacts.write_text(file, ",".join(columns) + "\n")
