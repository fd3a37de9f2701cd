"""Images that compress and decode like photographs: smooth at all scales, with a little noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from pathlib import Path


def photo(width: int, height: int, seed: int) -> Image.Image:
    """Random colour fields from 4 to 64 cells along 256 pixels, the coarse ones the strongest."""
    random = np.random.default_rng(seed)
    field = random.normal(scale=0.03, size=(height, width, 3))
    for cells in (4, 8, 16, 32, 64):
        coarse = random.normal(size=(height * cells // 256 + 2, width * cells // 256 + 2, 3)).astype(np.float32)
        for channel in range(3):
            smooth = Image.fromarray(coarse[..., channel]).resize((width, height), Image.Resampling.BICUBIC)
            field[..., channel] += np.asarray(smooth) / np.sqrt(cells)
    low, high = field.min(), field.max()
    return Image.fromarray(((field - low) * (255 / (high - low))).astype(np.uint8))


def write(folder: Path, count: int, size: tuple[int, int]) -> list[str]:
    """JPEG files of quality 90, width and height in `size`; returns their names."""
    folder.mkdir(parents=True)
    names = [f"{n}.jpg" for n in range(count)]
    for n, name in enumerate(names):
        photo(*size, seed=n).save(folder / name, quality=90)
    return names
