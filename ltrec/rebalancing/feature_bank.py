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

from ltrec import artifacts
from ltrec.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import torch
    from numpy.typing import NDArray
    from torch import Tensor


# Seeds of the views drawn: apart from those of the sampler's draws.
_VIEW_STREAM = 0x71E5
# Of a GPU's free memory, what a bank may take.
_DEVICE_SHARE = 0.5


@dataclass(frozen=True)
class FeatureBank:
    """One split's features.

    Attributes:
        features: float32 (V, N, D); row i is line i of the split's list.
        labels: int64 (N,); -1 for an image of no class of the task.
        header: What wrote it, and from which inputs.
    """

    features: Tensor
    labels: Tensor
    header: dict[str, Any]
    precomputed: ClassVar[bool] = True
    """Whether what is trained on is `features` itself."""

    @classmethod
    def open(cls, path: Path, **made_from: str | Path) -> FeatureBank:
        """Map a bank into memory.

        Args:
            path: Where it lies.
            made_from: What it must belong to, as `artifacts.require_made_from` takes it.

        Raises:
            UserError: missing, damaged, no feature bank, or one that belongs to something else.
        """
        tensors, header = artifacts.load_tensors(path)
        if set(tensors) != {"features", "labels"}:
            raise UserError("is an artifact of ltrec's, but no feature bank", where=str(path))
        artifacts.require_made_from(path, header, **made_from)
        return cls(tensors["features"], tensors["labels"], header)

    def to(self, device: torch.device) -> FeatureBank:
        """The same bank on a device; features that a GPU has no room for stay, and are sent as they are wanted."""
        import torch

        fits = device.type != "cuda" or self.features.nbytes <= _DEVICE_SHARE * torch.cuda.mem_get_info(device)[0]
        return FeatureBank(self.features.to(device) if fits else self.features, self.labels.to(device), self.header)

    def known(self) -> FeatureBank:
        """The images of the task's classes; the bank itself if it holds no others."""
        known = self.labels != artifacts.UNKNOWN
        return self if known.all() else FeatureBank(self.features[:, known], self.labels[known], self.header)

    @property
    def plain(self) -> Tensor:
        """The features of the evaluation transform, (N, D)."""
        return self.features[0]

    @property
    def dim(self) -> int:
        """D."""
        return self.features.shape[2]

    @property
    def views(self) -> int:
        """V."""
        return self.features.shape[0]

    def batches(self, drawn: NDArray[np.int64], size: int, *, epoch: int, seed: int) -> Iterator[Tensor]:
        """The features that an epoch trains on: of each image drawn, those of a random view.

        Args:
            drawn: Which images, (M,).
            size: B, images a batch; what is left over fills none and is left out.
            epoch: Counted from 0.
            seed: Of the views.

        Yields:
            Features (B, D) of B images at a time, in the order drawn.
        """
        import torch

        device = self.features.device  # perhaps not that of the labels
        views = np.random.default_rng([seed, epoch, _VIEW_STREAM]).integers(self.views, size=len(drawn))
        rows, flat = torch.from_numpy(views * len(self.labels) + drawn).to(device), self.features.flatten(0, 1)
        for start in range(0, len(drawn) - size + 1, size):
            yield flat.index_select(0, rows[start : start + size]).to(self.labels.device)


@contextlib.contextmanager
def writing(
    path: Path, labels: NDArray[np.int64], *, views: int, dim: int, header: Mapping[str, object]
) -> Iterator[NDArray[np.float32]]:
    """Yield a memory-mapped float32 array (V, N, D) to fill; the file takes its place when the block ends.

    The features go to disk as they come, so that a bank may be larger than memory.
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
    # first: behind an odd number of features their eight bytes would not be aligned.
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
    """Make a file so large that writing to its mapping cannot find the disk full: that would kill the process."""
    if hasattr(os, "posix_fallocate"):  # not on macOS
        os.posix_fallocate(file, 0, size)
    else:
        os.truncate(file, size)
