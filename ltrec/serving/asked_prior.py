"""The class prior that `predict` is asked to answer for, given or estimated. N images, C classes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ltrec import console
from ltrec.errors import UserError, some
from ltrec.serving.prior_files import TRAIN, UNIFORM, prior_of_word, read_prior
from ltrec.serving.priors import estimate_prior

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ltrec.serving.answers import Prediction
    from ltrec.serving.predictor import Predictor
    from ltrec.serving.priors import Prior

_LEAST_IMAGES = 50
# Of all images' probabilities, while their prior is estimated; in the making of the array they are there twice.
_KEPT_BYTES = 2**29
_SHOWN_CLASSES = 3


def given_prior(predictor: Predictor, wanted: str) -> Prior:
    """Return the class prior (C,) that `uniform`, `train` or the path of a file stands for.

    Raises:
        UserError: The model says nothing of its own prior or its class counts, or the file cannot be used.
    """
    card, own = predictor.card, predictor.prior
    if wanted not in {UNIFORM, TRAIN}:
        return read_prior(Path(wanted), card.classes)
    counts = [1] * len(own) if wanted == UNIFORM else card.class_counts
    if counts is None:
        raise UserError("the model does not say how many training images its classes had", where="--prior train")
    return prior_of_word(wanted, counts, card.classes, where=f"--prior {wanted}")


def with_estimated_prior(predictor: Predictor, predictions: Iterator[Prediction]) -> Iterator[Prediction]:
    """Return predictions that answer for the class prior that all of them together make likeliest, which is said.

    Raises:
        UserError: There are too few images to estimate it from, or too many to keep.
    """
    own, classes = predictor.prior, predictor.card.classes
    most = _KEPT_BYTES // (4 * len(classes))
    kept: list[Prediction] = []
    for prediction in predictions:
        if len(kept) == most:
            raise UserError(
                f"estimate keeps the probabilities of all images, and takes at most {most:,} images of {len(classes):,}"
                " classes; estimate on some of them, and give the others a file",
                where="--prior",
            )
        kept.append(prediction)
    shown = [each.probabilities for each in kept if each.probabilities is not None and not each.unknown]
    if len(shown) < _LEAST_IMAGES:
        raise UserError(
            f"estimate needs {_LEAST_IMAGES} images of known classes at least, got {len(shown)}; allowed with fewer:"
            f" {UNIFORM}, {TRAIN}, or a file",
            where="--prior",
        )
    found = estimate_prior(np.stack(shown), own)
    order = np.argsort(-found.prior, kind="stable").tolist()
    shares = some([f"{classes[label]} {found.prior[label]:.1%}" for label in order], _SHOWN_CLASSES)
    console.say(f"predict: the class prior of these {len(shown):,} images, estimated in {found.steps} steps: {shares}")
    if not found.settled:
        console.warn("predict: the estimated class prior did not stand still: the last step's is used")
    return (predictor.answer(each, found.prior) for each in kept)
