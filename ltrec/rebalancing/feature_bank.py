"""The feature bank: every image's features under one or more views, memory-mapped.

V views, N images, D feature dimensions. View 0 is the evaluation transform, the others are augmented.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from ltrec import artifacts
from ltrec.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from ltrec.data.image_lists import ImageList

# A part of the seed that keeps the views drawn apart from the sampler's draws.
_VIEW_STREAM = 0x71E5
# The share of a GPU's free memory that a bank may take.
_DEVICE_SHARE = 0.5


@dataclass(frozen=True)
class FeatureBank:
    """One split's features.

    Attributes:
        features: float32 (V, N, D); row i is that of line i of the split's list.
        labels: int64 (N,); -1 for an image of no class of the task.
        header: What wrote the bank, and from which inputs.
    """

    features: Tensor
    labels: Tensor
    header: dict[str, Any]
    precomputed: ClassVar[bool] = True
    """Whether training takes `features` themselves."""

    @classmethod
    def open(cls, path: Path, **made_from: str | Path) -> FeatureBank:
        """Return the bank in a file, mapped into memory; `made_from` goes to `artifacts.require_made_from`.

        Raises:
            UserError: The file is missing, damaged, no feature bank, or one that belongs to something else.
        """
        tensors, header = artifacts.load_tensors(path)
        if set(tensors) != {"features", "labels"}:
            raise UserError("is an artifact of ltrec's, but no feature bank", where=str(path))
        artifacts.require_made_from(path, header, **made_from)
        return cls(tensors["features"], tensors["labels"], header)

    def to(self, device: torch.device) -> FeatureBank:
        """Return the bank on a device; features that a GPU has no room for stay, and are sent batch by batch."""
        fits = device.type != "cuda" or self.features.nbytes <= _DEVICE_SHARE * torch.cuda.mem_get_info(device)[0]
        return FeatureBank(self.features.to(device) if fits else self.features, self.labels.to(device), self.header)

    def known(self) -> FeatureBank:
        """Return the bank of the images that are of a class of the task."""
        known = self.labels != artifacts.UNKNOWN
        return self if known.all() else FeatureBank(self.features[:, known], self.labels[known], self.header)

    def require_images_of(self, listed: ImageList, file: Path, *, where: str) -> None:
        """Refuse a bank of other images than a list's, as far as their labels tell.

        Args:
            listed: The list.
            file: Its file.
            where: The bank's file.

        Raises:
            UserError: The labels differ.
        """
        if not np.array_equal(listed.labels, self.labels.cpu().numpy()):
            raise UserError(
                f"holds features of other images than {file} lists; run `ltrec featurize` or `dvc repro`", where=where
            )

    @property
    def plain(self) -> Tensor:
        """Return the features of the evaluation transform, (N, D)."""
        return self.features[0]

    @property
    def views(self) -> int:
        """Return V."""
        return self.features.shape[0]

    def batches(self, drawn: NDArray[np.int64], size: int, *, epoch: int, seed: int) -> Iterator[Tensor]:
        """Yield an epoch's batches of features (size, D): of each image drawn, by its row, those of a random view.

        A last batch that is smaller is left out. Epoch and seed decide on the views.
        """
        device = self.features.device  # It may be another than that of the labels.
        views = np.random.default_rng([seed, epoch, _VIEW_STREAM]).integers(self.views, size=len(drawn))
        rows, flat = torch.from_numpy(views * len(self.labels) + drawn).to(device), self.features.flatten(0, 1)
        for start in range(0, len(drawn) - size + 1, size):
            yield flat.index_select(0, rows[start : start + size]).to(self.labels.device)


@contextlib.contextmanager
def writing(
    path: Path, labels: NDArray[np.int64], *, views: int, dim: int, header: Mapping[str, object]
) -> Iterator[NDArray[np.float32]]:
    """Yield the float32 array (V, N, D) to fill of a new bank; the file takes its place when the block ends.

    The array is mapped to disk, so that a bank may be larger than memory.
    """
    shape = (views, len(labels), dim)
    label_bytes = 8 * len(labels)
    end = label_bytes + 4 * int(np.prod(shape))
    layout = {
        "__metadata__": {"ltrec": json.dumps(header, sort_keys=True)},
        "labels": {"dtype": "I64", "shape": (len(labels),), "data_offsets": (0, label_bytes)},
        "features": {"dtype": "F32", "shape": shape, "data_offsets": (label_bytes, end)},
    }
    # The safetensors format: length of the header, the header as JSON padded to 8 bytes, the tensors. The labels come
    # first: after an odd number of features their eight bytes would not be aligned.
    text = json.dumps(layout).encode()
    text += b" " * (-len(text) % 8)
    with artifacts.replacing(path) as temporary:
        with temporary.open("wb") as file:
            start = file.write(struct.pack("<Q", len(text)) + text + labels.astype("<i8").tobytes())
            _reserve(file.fileno(), 8 + len(text) + end)
        features = np.memmap(temporary, dtype="<f4", mode="r+", offset=start, shape=shape)
        yield features
        features.flush()


def _reserve(file: int, size: int) -> None:
    """Give a file its size at once: a disk found full while its mapping is written would kill the process."""
    if hasattr(os, "posix_fallocate"):  # not on macOS
        os.posix_fallocate(file, 0, size)
    else:
        os.truncate(file, size)
