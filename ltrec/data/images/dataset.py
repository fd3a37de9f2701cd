"""Batches of decoded images as uint8 tensors in host memory; worker processes decode, or this one does."""

from __future__ import annotations

import contextlib
import gc
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from ltrec.data.images.decoding import decode_square
from ltrec.data.images.formats import UnreadableImageError, UnsupportedFormatError
from ltrec.data.images.jpeg import decode_part
from ltrec.data.images.path_list import PathList
from ltrec.errors import UserError, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from ltrec.data.images.augmentation import Crop
    from ltrec.data.images.decoding import Geometry


_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - of the system's, not a temporary file
_WHERE = "params.yaml: represent.workers, featurize.workers"


class ImageDataset(Dataset[tuple["Tensor", int] | UserError]):
    """The squares of a list's images; item (index, seed) is (uint8 (H, W, 3), index).

    A file that cannot be read is returned as the error itself: an exception that crosses
    from a worker process would bring the worker's traceback along.

    Args:
        root: The folder that the paths are relative to.
        paths: One file an image.
        geometry: How the evaluation square is cut.
        crop: Returns the part to train on, for an image's width, its height and a seed; None: the evaluation square.
        truncated: The paths of which the end of the file may be missing.
    """

    def __init__(
        self,
        root: Path,
        paths: Sequence[str],
        geometry: Geometry,
        crop: Crop | None = None,
        *,
        truncated: frozenset[str] = frozenset(),
    ) -> None:
        self.root = root
        self.paths = paths if isinstance(paths, PathList) else PathList(paths)
        self.geometry = geometry
        self.crop = crop
        self.truncated = truncated

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, item: tuple[int, int]) -> tuple[Tensor, int] | UserError:
        index, seed = item
        path = self.paths[index]
        file, truncated = self.root / path, path in self.truncated
        try:
            if (crop := self.crop) is None:
                # Copied, since PyTorch wants memory that can be written to, and Pillow's cannot.
                return torch.from_numpy(decode_square(file, self.geometry, truncated=truncated).copy()), index
            size = self.geometry.size
            part = decode_part(file, lambda width, height: crop(width, height, seed), size, truncated=truncated)
            return resized(part, self.geometry), index
        except UnsupportedFormatError as error:
            return UserError(f"{error}; `prepare` could read it", where=str(file))
        except UnreadableImageError as error:
            remedy = (
                "it is a copy and may be deleted, to be made anew"
                if Path(path).is_absolute()
                else "it could be read by `prepare`: has the data changed since? `dvc repro` prepares it anew"
            )
            return UserError(f"{error}; {remedy}", where=str(file))

    @property
    def bytes(self) -> int:
        """Return the size of all squares together."""
        return len(self) * self.geometry.size**2 * 3


def resized(pixels: NDArray[np.uint8], geometry: Geometry) -> Tensor:
    """Return a part of an image, uint8 (h, w, 3), as a square of `geometry.size` pixels, uint8 (H, W, 3)."""
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2.functional import resize

    channels_first = torch.from_numpy(pixels).permute(2, 0, 1)
    how = InterpolationMode(geometry.interpolation)
    square: Tensor = resize(channels_first, [geometry.size, geometry.size], interpolation=how, antialias=True)
    return square.permute(1, 2, 0).contiguous()


class BatchLoader:
    """Epochs of batches, each in an order of its own; the worker processes live through all of them.

    Args:
        images: The squares.
        workers: The number of processes that decode; 0: this one does.
        pin: Whether batches lie in page-locked memory, for copies to a GPU.
        beside: The number of loaders that share this machine's memory, this one included.
    """

    def __init__(self, images: ImageDataset, workers: int, *, pin: bool = False, beside: int = 1) -> None:
        # Nothing here points back at this object: in a cycle the garbage collector takes the queues
        # before the loader, and every worker process is then waited for in vain.
        self._order = _Order()
        self._pixels = images.geometry.size**2 * 3
        self._waiting, self._beside = 2 * workers, beside  # each worker is two batches ahead
        self._loader = DataLoader(
            images,
            batch_sampler=self._order,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=pin,
            collate_fn=_collate,
            worker_init_fn=_leave_shared,
            generator=torch.Generator(),  # else each epoch would draw from the global one
        )

    def epoch(
        self, indices: NDArray[np.int64], seeds: NDArray[np.int64], parts: Sequence[slice]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield batches of images, uint8 (B, H, W, 3), with their indices, (B,).

        Args:
            indices: The images of the epoch in order, (M,).
            seeds: The seed of each one's crop, (M,).
            parts: The stretch of the M images that each batch holds.

        Raises:
            UserError: an image cannot be read, or a worker process is gone.
        """
        self._order.images, self._order.parts = (indices, seeds), parts
        if self._waiting:
            largest = max((len(indices[part]) for part in parts), default=0)
            _require_shared_memory(min(self._waiting, len(parts)) * largest * self._pixels * self._beside)
            self._waiting = 0  # from now on the processes live, and what they take is not free any more
        with killed_worker_explained():
            for batch in self._loader:
                if isinstance(batch, UserError):
                    raise UserError(batch.what, where=batch.where)  # not itself: its traceback would hold this frame
                yield batch


def _leave_shared(_worker: int) -> None:
    """Keep garbage collection off what came from the process that started this one.

    It writes to every object, and so gives this process its own copy of all modules, 50 MB.
    """
    gc.freeze()


def _require_shared_memory(needed: int) -> None:
    """Raise UserError if worker processes would be killed for want of shared memory, through which batches come."""
    try:
        free = shutil.disk_usage(_SHARED_MEMORY).free
    except OSError:  # macOS has no such folder
        return
    if needed > free:
        raise UserError(
            f"the processes that decode need {needed / 1e6:,.0f} MB of shared memory for their batches, and"
            f" {_SHARED_MEMORY} has {free / 1e6:,.0f} MB free: give it more (docker run --shm-size"
            f" {-(-needed // 10**9)}g), or take fewer workers or a smaller batch_size; `workers: 0` does without",
            where=_WHERE,
        )


@contextlib.contextmanager
def killed_worker_explained() -> Iterator[None]:
    """Say in one line that a process that decodes was killed.

    PyTorch raises that from a signal's handler, wherever this process is then: stages are decorated with it whole.

    Raises:
        UserError: a worker process is gone.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker (pid" not in str(error):  # else an error that a worker met, not its end
            raise
        raise UserError(
            f"a process that decodes images was killed ({one_line(error, 120)}): for want of memory, or of shared"
            " memory (docker run --shm-size 2g)? `workers: 0` does without such processes",
            where=_WHERE,
        ) from None


class _Order:
    """The batch sampler: it makes a batch's (index, seed) pairs when its turn comes, since an epoch may have 10^7.

    Attributes:
        images: The epoch's indices and seeds, (M,) each.
        parts: The stretch of the M images that each batch holds.
    """

    def __init__(self) -> None:
        self.images = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
        self.parts: Sequence[slice] = ()

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        indices, seeds = self.images
        for part in self.parts:
            yield list(zip(indices[part].tolist(), seeds[part].tolist(), strict=True))

    def __len__(self) -> int:
        return len(self.parts)


def _collate(items: list[tuple[Tensor, int] | UserError]) -> tuple[Tensor, Tensor] | UserError:
    squares, indices = [], []
    for item in items:
        if isinstance(item, UserError):
            return item
        squares.append(item[0])
        indices.append(item[1])
    return torch.stack(squares), torch.tensor(indices)
