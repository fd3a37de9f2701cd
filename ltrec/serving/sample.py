"""A sample of images, to check and to calibrate a model with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ltrec.data.images import decoding
from ltrec.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from ltrec.data.image_lists import ImageList
    from ltrec.data.images.decoding import Geometry


def sample(
    listed: ImageList, count: int, root: Path, geometry: Geometry
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return images spread evenly over a list, decoded as in serving, uint8 (N, H, W, 3), and their labels (N,).

    Raises:
        UserError: An image cannot be read.
    """
    chosen = np.linspace(0, len(listed) - 1, min(count, len(listed))).round().astype(int)
    images = np.empty((len(chosen), geometry.size, geometry.size, 3), dtype=np.uint8)
    for row, index in enumerate(chosen):
        file = root / listed.paths[index]
        try:
            images[row] = decoding.square(decoding.decode_rgb(file), geometry)
        except decoding.UnreadableImageError as error:
            raise UserError(
                f"{error}; has the data changed since `prepare`? run `dvc repro`", where=str(file)
            ) from None
    return images, listed.labels[chosen]
