"""Images of a list as batches of uint8 tensors, decoded in worker processes or kept in memory."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from ltrec.data.decoding import UnreadableImageError, decode_rgb, square
from ltrec.errors import UserError, one_line
from ltrec.process import cores

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from PIL import Image
    from torch import Tensor

    from ltrec.augment import View
    from ltrec.data.decoding import Geometry

# Sets of small images are decoded once and stay in memory; larger ones are decoded anew each time.
_RESIDENT_BYTES = 1 << 30
_RESIDENT_SIDE = 96
_SAMPLE = 16


class Images(Dataset[tuple["Tensor", int] | UserError]):
    """The decoded images of a list; item (index, seed) is (uint8 (H, W, 3), index).

    A file that cannot be read is returned as the error itself: an exception that crosses
    from a worker process would bring the worker's traceback along.

    Args:
        root: Folder that the paths are relative to.
        paths: One file an image.
        geometry: The evaluation square.
        view: Gives the training view for (image, seed); None: the evaluation square.
    """

    def __init__(self, root: Path, paths: Sequence[str], geometry: Geometry, view: View | None = None) -> None:
        self.root = root
        self.paths = paths
        self.geometry = geometry
        self.view = view
        self._decoded: dict[int, Image.Image] = {}
        self._room = _RESIDENT_BYTES
        self.resident = self._look_small()

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, item: tuple[int, int]) -> tuple[Tensor, int] | UserError:
        index, seed = item
        image = self._decoded.get(index)
        if image is None:
            try:
                image = self._decode(index)
            except UserError as error:
                return error
            self._keep(index, image)
        pixels = square(image, self.geometry) if self.view is None else self.view(image, seed)
        return torch.from_numpy(pixels.copy()), index

    def _look_small(self) -> bool:
        """Whether some images, spread over the list, are small and so few that all may stay in memory."""
        spread = {round(place) for place in np.linspace(0, len(self) - 1, _SAMPLE)} if len(self) else ()
        sample = [self._decode(index) for index in sorted(spread)]
        sizes = [_bytes(image) for image in sample if max(image.size) <= _RESIDENT_SIDE]
        return len(sizes) == len(sample) and float(np.mean(sizes or [0])) * len(self) <= _RESIDENT_BYTES

    def _keep(self, index: int, image: Image.Image) -> None:
        """Keep what is as small as it looked; worker processes, which would each have a copy, keep nothing."""
        if self.resident and max(image.size) <= _RESIDENT_SIDE and get_worker_info() is None:
            self._room -= _bytes(image)
            if self._room >= 0:
                self._decoded[index] = image

    def _decode(self, index: int) -> Image.Image:
        file = self.root / self.paths[index]
        try:
            return decode_rgb(file)
        except UnreadableImageError as error:
            raise UserError(
                f"{error}; it could be read by `prepare`: has the data changed since? `dvc repro` prepares it anew",
                where=str(file),
            ) from None


class Batches:
    """Epochs of batches; a fresh order each, the worker processes stay.

    Args:
        images: What to load.
        batch_size: Images a batch.
        workers: Worker processes; None: none for resident images, else one a core.
        pin: Page-locked memory, for copies to a GPU.
    """

    def __init__(self, images: Images, batch_size: int, workers: int | None = None, *, pin: bool = False) -> None:
        # Nothing here points back at this object: in a cycle the garbage collector takes the queues
        # before the loader, and every worker process is then waited for in vain.
        self._order = _Order(batch_size)
        self._batch_size = batch_size
        self._count = len(images)
        if workers is None:
            workers = 0 if images.resident else cores()
        self._loader = DataLoader(
            images,
            batch_sampler=self._order,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=pin,
            collate_fn=_collate,
            generator=torch.Generator(),  # else each epoch would draw from the global one
        )

    def epoch(
        self, indices: NDArray[np.int64], seeds: NDArray[np.int64], *, drop_last: bool
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of (images uint8 (B, H, W, 3), index (B,)) in the order given.

        Args:
            indices: Which images, (M,).
            seeds: The seed of each one's view, (M,).
            drop_last: Leave out a last batch that is not full (unless it is the only one).

        Raises:
            UserError: an image cannot be read, or a worker process is gone.
        """
        size = self._batch_size
        end = len(indices) // size * size if drop_last and len(indices) >= size else len(indices)
        self._order.drawn = indices[:end], seeds[:end]
        with _killed_worker_explained():
            for batch in self._loader:
                if isinstance(batch, UserError):
                    raise UserError(batch.what, where=batch.where)  # not itself: its traceback would hold this frame
                yield batch

    def once(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Every image once, in the order of the list."""
        everything = np.arange(self._count)
        return self.epoch(everything, np.zeros_like(everything), drop_last=False)


@contextlib.contextmanager
def _killed_worker_explained() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise UserError(
            f"a process that decodes images was killed ({one_line(error, 120)}): for want of memory, or of shared"
            " memory (docker run --shm-size 2g)? `workers: 0` does without such processes",
            where="params.yaml: represent.workers, featurize.workers",
        ) from None


class _Order:
    """The batch sampler: (index, seed) of each batch's images, made when its turn comes: an epoch may have 10^7.

    Attributes:
        drawn: The epoch's indices and seeds, (M,) each.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.drawn = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        indices, seeds = self.drawn
        for start in range(0, len(indices), self.size):
            batch = slice(start, start + self.size)
            yield list(zip(indices[batch].tolist(), seeds[batch].tolist(), strict=True))

    def __len__(self) -> int:
        return math.ceil(len(self.drawn[0]) / self.size)


def _collate(items: list[tuple[Tensor, int] | UserError]) -> tuple[Tensor, Tensor] | UserError:
    read = []
    for item in items:
        if isinstance(item, UserError):
            return item
        read.append(item)
    return torch.stack([pixels for pixels, _ in read]), torch.tensor([index for _, index in read])


def _bytes(image: Image.Image) -> int:
    return image.width * image.height * 3


def view_seeds(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """A seed for each image shown in an epoch, (count,); the same after a resume."""
    return np.random.default_rng([seed, epoch, 0x5EED]).integers(0, 2**62, size=count)
