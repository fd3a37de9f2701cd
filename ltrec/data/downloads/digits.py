"""Sample data without a download: scikit-learn's handwritten digits as an image folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ltrec.data.downloads.writing import write_images

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

_INK = 16  # the darkest value of a digit's pixel


def write_digits(root: Path) -> None:
    """Write the 1,797 8 × 8 scans of the UCI digits test set as `root/<class>/<n>.png`.

    n is the image's place in scikit-learn's set. The bytes are the same on every machine. What is there already
    stays: identical files are fine, missing ones are added.

    Raises:
        UserError: `root` holds something else; nothing is written then.
    """
    write_images(root, _digits(), "handwritten digits")


def _digits() -> dict[str, NDArray[np.uint8]]:
    """Return the scans by relative path, (8, 8) of 0 … 255."""
    from sklearn.datasets import load_digits

    bundle = load_digits()
    return {
        f"{label}/{number:04d}.png": ((pixels.astype("int64") * 255 + _INK // 2) // _INK).astype("uint8")
        for number, (pixels, label) in enumerate(zip(bundle.images, bundle.target, strict=True))
    }
