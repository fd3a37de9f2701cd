"""Batches of images on the device: kept there where they fit, else decoded anew and sent one batch ahead.

M images an epoch, B a batch, H = W pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from ltrec.artifacts import Layout
from ltrec.compute.distributed import SINGLE_PROCESS, local_rank
from ltrec.data.images.cache import training_files
from ltrec.data.images.dataset import BatchLoader, ImageDataset
from ltrec.process import cores
from ltrec.project import state_dir

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from ltrec.compute.distributed import World
    from ltrec.data.images.augmentation import Augment
    from ltrec.data.images.decoding import Geometry

    Batch = tuple[Tensor, Tensor]

# Evaluation squares of a set up to this size stay in memory when they are wanted again.
_RESIDENT_BYTES = 2 << 30
# Squares that this process decodes as fast as others could be started to do it.
_FEW_BYTES = 64 << 20
# Of a GPU's free memory, what they may take.
_DEVICE_SHARE = 0.25
# Keys of the random numbers: those of the crops are apart from those of the steps that follow.
_CROPS, _STEPS = 0x5EED, 0xA06


class DeviceLoader:
    """Epochs of batches of a list's images, the same ones however many processes, devices and ranks there are.

    Args:
        files: The folder that paths are relative to, and one path an image.
        geometry: The evaluation square.
        device: Where the batches are wanted.
        batch_size: Images a batch, of all ranks together.
        augment: Makes training views; None: the evaluation square.
        workers: Processes that decode; None: none where little is decoded, else one a core.
        world: Who shares the batches.
        again: Whether more than one epoch will be asked for.
    """

    def __init__(
        self,
        files: tuple[Path, Sequence[str]],
        geometry: Geometry,
        device: torch.device,
        batch_size: int,
        *,
        augment: Augment | None = None,
        workers: int | None = None,
        world: World = SINGLE_PROCESS,
        again: bool = True,
    ) -> None:
        self._images = images = ImageDataset(*files, geometry, augment.crop if augment is not None else None)
        self._device = device
        self._batch_size = batch_size
        self._augment = augment
        self._ranks = world
        if workers is None:
            workers = 0 if images.bytes <= _FEW_BYTES else max(1, cores() // world.local_size)
        self._batches: BatchLoader | None = BatchLoader(images, workers, pin=device.type == "cuda")
        self._keeps = again and images.crop is None and images.bytes <= _RESIDENT_BYTES
        self._kept: Tensor | None = None
        # One for all epochs: memory is kept for each stream.
        self._copying = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def epoch(self, indices: NDArray[np.int64], key: tuple[int, ...], *, drop_last: bool) -> Iterator[Batch]:
        """This rank's part of each batch: images (b, H, W, 3) in 0…255 and index (b,), both on the device.

        Args:
            indices: Which images, in order, (M,).
            key: Of the random views; the same key gives the same views.
            drop_last: Leave out a last batch that is not full (unless it is the only one).

        Raises:
            UserError: an image cannot be read, or a worker process is gone.
        """
        size = self._batch_size
        end = len(indices) // size * size if drop_last and len(indices) >= size else len(indices)
        spans = [(start, min(start + size, end)) for start in range(0, end, size)]
        mine = [slice(start + self._ranks.rank, stop, self._ranks.size) for start, stop in spans]
        squares = self._resident(indices, mine) if self._keeps else self._streamed(indices, mine, key)
        for (start, stop), (pixels, index) in zip(spans, squares, strict=True):
            if self._augment is None or not self._augment.draws:
                yield pixels, index
            else:
                own = step_draws(key, start, stop, self._augment.draws)[self._ranks.rank :: self._ranks.size]
                yield self._augment(pixels, torch.from_numpy(own).to(self._device, non_blocking=True)), index

    def once(self) -> Iterator[Batch]:
        """Every image once, in the order of the list."""
        return self.epoch(np.arange(len(self._images)), (0,), drop_last=False)

    def _streamed(self, indices: NDArray[np.int64], mine: list[slice], key: tuple[int, ...]) -> Iterator[Batch]:
        assert self._batches is not None, "only what is kept lets the worker processes go"
        seeds = crop_seeds(key, len(indices)) if self._images.crop is not None else np.zeros_like(indices)
        filled = [part for part in mine if part.start < part.stop]
        yield from _ahead(self._batches.epoch(indices, seeds, filled), self._device, self._copying)
        for _ in mine[len(filled) :]:  # the last batch may be smaller than the number of ranks
            side = self._images.geometry.size
            nothing = torch.empty((0, side, side, 3), dtype=torch.uint8, device=self._device)
            yield nothing, torch.empty(0, dtype=torch.int64, device=self._device)

    def _resident(self, indices: NDArray[np.int64], mine: list[slice]) -> Iterator[Batch]:
        if self._kept is None:
            self._kept = self._read_all()
            self._batches = None
        kept, order = self._kept, torch.from_numpy(indices).to(self._kept.device)
        yield from _ahead(((kept[order[part]], order[part]) for part in mine), self._device, self._copying)

    def _read_all(self) -> Tensor:
        """All squares, uint8 (N, H, W, 3), on the device if they fit."""
        assert self._batches is not None, "they are read once"
        count, side = len(self._images), self._images.geometry.size
        where = self._device
        if where.type == "cuda" and self._images.bytes > _DEVICE_SHARE * torch.cuda.mem_get_info(where)[0]:
            where = torch.device("cpu")
        kept = torch.empty((count, side, side, 3), dtype=torch.uint8, device=where)
        everything = np.arange(count)
        parts = [slice(start, min(start + self._batch_size, count)) for start in range(0, count, self._batch_size)]
        read = self._batches.epoch(everything, np.zeros_like(everything), parts)
        for part, (squares, _) in zip(parts, read, strict=True):
            kept[part] = squares
        return kept


def training_loader(
    files: tuple[Path, Sequence[str]],
    geometry: Geometry,
    device: torch.device,
    batch_size: int,
    *,
    augment: Augment,
    workers: int | None,
    world: World = SINGLE_PROCESS,
) -> DeviceLoader:
    """A feed of augmented training images, whose crops are taken from smaller copies where `prepare.cache` wants them.

    Raises:
        UserError: an original of a copy that is to be made has changed.
    """
    root, paths = files
    if augment.crop is not None:
        # Each machine may have a disk of its own; its processes share the copying.
        share, folder = (local_rank(), world.local_size), state_dir() / "cache"
        threads = max(1, cores() // world.local_size)
        paths = training_files(Layout().cache_list, root, paths, folder=folder, workers=threads, share=share)
        world.wait()
    return DeviceLoader((root, paths), geometry, device, batch_size, augment=augment, workers=workers, world=world)


def _ahead(batches: Iterable[Batch], device: torch.device, stream: torch.cuda.Stream | None) -> Iterator[Batch]:
    """Batches on the device; on a GPU a batch is copied, on a stream of its own, while the one before is worked on."""
    if stream is None:
        for squares, index in batches:
            yield squares.to(device), index.to(device)
        return
    waiting: tuple[Batch, torch.cuda.Event] | None = None
    for batch in batches:
        with torch.cuda.stream(stream):
            squares, index = (tensor.to(device, non_blocking=True) for tensor in batch)
            arrived = stream.record_event()
        if waiting is not None:
            yield _arrived(*waiting)
        waiting = (squares, index), arrived
    if waiting is not None:
        yield _arrived(*waiting)


def _arrived(batch: Batch, event: torch.cuda.Event) -> Batch:
    """The batch, once it is there; its memory is not given to the copying stream before this one is done with it."""
    current = torch.cuda.current_stream()
    current.wait_event(event)
    for tensor in batch:
        tensor.record_stream(current)
    return batch


def crop_seeds(key: tuple[int, ...], count: int) -> NDArray[np.int64]:
    """A seed for the crop of each image shown in an epoch, (count,)."""
    return np.random.default_rng([*key, _CROPS]).integers(0, 2**62, size=count)


def step_draws(key: tuple[int, ...], start: int, stop: int, width: int) -> NDArray[np.float32]:
    """Numbers in 0…1 for the images from one place of an epoch to before another, (stop − start, width).

    They depend on an image's place alone, not on batches or on who makes them.
    """
    bits = np.random.PCG64([*key, _STEPS])
    bits.advance(start * width)  # a draw of 64 bits each
    return np.random.Generator(bits).random((stop - start, width)).astype(np.float32)
