"""Batches of images on the device: kept there where they fit, else decoded anew and sent one batch ahead.

N images in the list, M in an epoch, B in a batch, b of them for this rank; H = W pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from ltrec.artifacts import Layout
from ltrec.compute.device import sent
from ltrec.compute.distributed import SINGLE_PROCESS, local_rank
from ltrec.data.images.cache import training_files
from ltrec.data.images.dataset import BatchLoader, ImageDataset
from ltrec.data.images.repair import kept_truncated
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

# Evaluation squares of a set up to this size stay in memory for the next epoch.
_RESIDENT_BYTES = 2 << 30
# Up to this size this process decodes as fast as others could be started to do it.
_FEW_BYTES = 64 << 20
# The share of a GPU's free memory that squares may take.
_DEVICE_SHARE = 0.25
# Keys of the random numbers: those of crops and those of the steps that follow do not meet.
_CROPS, _STEPS = 0x5EED, 0xA06


class DeviceLoader:
    """Epochs of batches of a list's images, the same ones however many processes, devices and ranks there are.

    Args:
        files: The folder that paths are relative to, and one path an image.
        geometry: How the evaluation square is cut.
        device: Where the batches are wanted.
        batch_size: Images in a batch, of all ranks together.
        augment: Makes training views; None: the batches hold evaluation squares.
        workers: The number of processes that decode; None: none where little is decoded, else one a core.
        world: The processes that share the batches.
        several_epochs: Whether more than one epoch will be asked for.
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
        several_epochs: bool = True,
    ) -> None:
        crop = augment.crop if augment is not None else None
        self._images = images = ImageDataset(*files, geometry, crop, truncated=kept_truncated(Layout().stats))
        self._device = device
        self._batch_size = batch_size
        self._augment = augment
        self._world = world
        if workers is None:
            workers = 0 if images.bytes <= _FEW_BYTES else max(1, cores() // world.local_size)
        self._workers = workers
        self._batches: BatchLoader | None = self._batch_loader()
        self._keeps = several_epochs and images.crop is None and images.bytes <= _RESIDENT_BYTES
        self._kept: _Kept | None = None
        # One stream for all epochs, since PyTorch keeps memory for each.
        self._copying = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def epoch(self, indices: NDArray[np.int64], key: tuple[int, ...], *, drop_last: bool) -> Iterator[Batch]:
        """Yield this rank's part of each batch: images (b, H, W, 3) in 0…255 and indices (b,), both on the device.

        Args:
            indices: The images of the epoch in order, (M,).
            key: The key of the random views; the same key gives the same views.
            drop_last: Whether a last batch that is not full is left out (unless it is the only one).

        Raises:
            UserError: an image cannot be read, or a worker process is gone.
        """
        return self._epoch(indices, key, drop_last=drop_last, kept=np.arange(len(self._images)))

    def once(self) -> Iterator[Batch]:
        """Yield the batches of an epoch with every image once, in the order of the list.

        Of squares that are kept, a rank reads and keeps its own only.
        """
        order = np.arange(len(self._images))
        own = np.concatenate([order[part] for part in self._parts(self._spans(len(order)))])
        return self._epoch(order, (0,), drop_last=False, kept=own)

    def _batch_loader(self) -> BatchLoader:
        pin, beside = self._device.type == "cuda", self._world.local_size
        return BatchLoader(self._images, self._workers, pin=pin, beside=beside)

    def _spans(self, end: int) -> list[tuple[int, int]]:
        """Return where each batch of an epoch of `end` images begins and ends."""
        return [(start, min(start + self._batch_size, end)) for start in range(0, end, self._batch_size)]

    def _parts(self, spans: list[tuple[int, int]]) -> list[slice]:
        """Return this rank's images of each batch."""
        return [slice(start + self._world.rank, stop, self._world.size) for start, stop in spans]

    def _epoch(
        self, indices: NDArray[np.int64], key: tuple[int, ...], *, drop_last: bool, kept: NDArray[np.int64]
    ) -> Iterator[Batch]:
        """Yield the batches; `kept` are the images that this and later epochs ask this rank for."""
        size = self._batch_size
        end = len(indices) // size * size if drop_last and len(indices) >= size else len(indices)
        spans = self._spans(end)
        parts, rank, ranks = self._parts(spans), self._world.rank, self._world.size
        batches = self._resident(indices, parts, kept) if self._keeps else self._streamed(indices, parts, key)
        for (start, stop), (squares, index) in zip(spans, batches, strict=True):
            if self._augment is None or not self._augment.draws:
                yield squares, index
            else:
                draws = torch.from_numpy(step_draws(key, start, stop, self._augment.draws)[rank::ranks])
                yield self._augment(squares, draws), index

    def _streamed(self, indices: NDArray[np.int64], parts: list[slice], key: tuple[int, ...]) -> Iterator[Batch]:
        assert self._batches is not None, "only what is kept lets the worker processes go"
        seeds = crop_seeds(key, len(indices)) if self._images.crop is not None else np.zeros_like(indices)
        filled = [part for part in parts if part.start < part.stop]
        yield from _ahead(self._batches.epoch(indices, seeds, filled), self._device, self._copying)
        for _ in parts[len(filled) :]:  # the last batch may be smaller than the number of ranks
            side = self._images.geometry.size
            nothing = torch.empty((0, side, side, 3), dtype=torch.uint8, device=self._device)
            yield nothing, torch.empty(0, dtype=torch.int64, device=self._device)

    def _resident(self, indices: NDArray[np.int64], parts: list[slice], kept: NDArray[np.int64]) -> Iterator[Batch]:
        if self._kept is None or len(self._kept.squares) < len(kept):
            self._kept = self._read(kept)
            self._batches = None
        squares, rows = self._kept
        order = torch.from_numpy(indices).to(squares.device)
        batches = ((squares[rows[order[part]]], order[part]) for part in parts)
        yield from _ahead(batches, self._device, self._copying)

    def _read(self, images: NDArray[np.int64]) -> _Kept:
        """Return the squares of some images, on the device if they fit."""
        count, side = len(images), self._images.geometry.size
        where = self._device
        if where.type == "cuda" and count * side**2 * 3 > _DEVICE_SHARE * torch.cuda.mem_get_info(where)[0]:
            where = torch.device("cpu")
        squares = torch.empty((count, side, side, 3), dtype=torch.uint8, device=where)
        parts = [slice(*span) for span in self._spans(count)]
        read = (self._batches or self._batch_loader()).epoch(images, np.zeros_like(images), parts)
        for part, (batch, _) in zip(parts, read, strict=True):
            squares[part] = batch
        rows = torch.zeros(len(self._images), dtype=torch.int64)
        rows[torch.from_numpy(images)] = torch.arange(count)
        return _Kept(squares, rows.to(where))


class _Kept(NamedTuple):
    """Squares that stay in memory."""

    squares: Tensor
    """uint8 (n, H, W, 3)."""
    rows: Tensor
    """Which of them is that of each image of the list, (N,)."""


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
    """Return a loader of augmented training images, with crops from smaller copies where `prepare.cache` wants them.

    Raises:
        UserError: an original of a copy that is to be made has changed.
    """
    root, paths = files
    if augment.crop is not None:
        # The processes of a machine share the copying; each machine may have a disk of its own.
        share, folder = (local_rank(), world.local_size), state_dir() / "cache"
        threads = max(1, cores() // world.local_size)
        paths = training_files(Layout().cache_list, root, paths, folder=folder, workers=threads, share=share)
        world.wait()
    return DeviceLoader((root, paths), geometry, device, batch_size, augment=augment, workers=workers, world=world)


def _ahead(batches: Iterable[Batch], device: torch.device, stream: torch.cuda.Stream | None) -> Iterator[Batch]:
    """Yield batches on the device; a GPU gets each on the copying stream while the one before is worked on."""
    if stream is None:
        for squares, index in batches:
            yield squares.to(device), index.to(device)
        return
    waiting: tuple[Batch, torch.cuda.Event] | None = None
    for batch in batches:
        with torch.cuda.stream(stream):
            squares, index = (sent(tensor, device) for tensor in batch)
            arrived = stream.record_event()
        if waiting is not None:
            yield _arrived(*waiting)
        waiting = (squares, index), arrived
    if waiting is not None:
        yield _arrived(*waiting)


def _arrived(batch: Batch, event: torch.cuda.Event) -> Batch:
    """Return the batch once it is there; the copying stream gets its memory back when this stream is done with it."""
    current = torch.cuda.current_stream()
    current.wait_event(event)
    for tensor in batch:
        tensor.record_stream(current)
    return batch


def crop_seeds(key: tuple[int, ...], count: int) -> NDArray[np.int64]:
    """Return a seed for the crop of each image shown in an epoch, (count,)."""
    return np.random.default_rng([*key, _CROPS]).integers(0, 2**62, size=count)


def step_draws(key: tuple[int, ...], start: int, stop: int, width: int) -> NDArray[np.float32]:
    """Return random numbers in 0…1 for an epoch's images `start` … `stop` − 1, (stop − start, width).

    They depend on an image's place alone, not on batches or on who makes them.
    """
    bits = np.random.PCG64([*key, _STEPS])
    bits.advance(start * width)  # a draw of 64 bits each
    return np.random.Generator(bits).random((stop - start, width)).astype(np.float32)
