"""A sample of images, to check and to calibrate a model with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ltrec.artifacts import Layout
from ltrec.data.images import decoding
from ltrec.data.images.formats import UnreadableImageError, UnsupportedFormatError
from ltrec.data.images.repair import kept_truncated
from ltrec.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from ltrec.data.image_lists import ImageList
    from ltrec.data.images.decoding import Geometry


@dataclass(frozen=True)
class Sample:
    """N images of a list.

    Attributes:
        rows: Their rows in the list, (N,).
        images: Their squares, uint8 (N, H, W, 3).
        labels: Their labels, (N,).
    """

    rows: NDArray[np.int64]
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


def sample(listed: ImageList, count: int, root: Path, geometry: Geometry) -> Sample:
    """Return images spread evenly over a list, decoded as in serving.

    Raises:
        UserError: An image cannot be read.
    """
    truncated = kept_truncated(Layout().stats)
    chosen = np.linspace(0, len(listed) - 1, min(count, len(listed))).round().astype(np.int64)
    images = np.empty((len(chosen), geometry.size, geometry.size, 3), dtype=np.uint8)
    for row, index in enumerate(chosen):
        path = listed.paths[index]
        file = root / path
        try:
            images[row] = decoding.decode_square(file, geometry, truncated=path in truncated)
        except UnsupportedFormatError as error:
            raise UserError(f"{error}; `prepare` could read it", where=str(file)) from None
        except UnreadableImageError as error:
            raise UserError(
                f"{error}; has the data changed since `prepare`? run `dvc repro`", where=str(file)
            ) from None
    return Sample(chosen, images, listed.labels[chosen])
