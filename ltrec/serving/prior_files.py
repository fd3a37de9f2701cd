"""Class priors that a user gives: by a word, or in a CSV or JSON file. It needs neither torch nor onnx."""

from __future__ import annotations

import csv
import json
import math
from typing import TYPE_CHECKING

import numpy as np

from ltrec import artifacts, console
from ltrec.errors import UserError, shortened, some
from ltrec.serving.priors import counted_prior

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from ltrec.serving.priors import Prior

UNIFORM, TRAIN, ESTIMATE = "uniform", "train", "estimate"
COLUMNS = ("class", "prior")

_LONGEST = 100
# A sum that rounding explains is not worth a word.
_ROUNDING = 1e-6
# Of float32's numbers nearly the smallest: what is rarer has no probability that could be told from 0.
_LEAST_SHARE = 1e-30


def read_prior(file: Path, classes: Sequence[str]) -> Prior:
    """Return the prior (C,) in a file, in the order of the classes.

    The file is a CSV table with the columns `class` and `prior`, or a JSON object `{"class": prior}`. What does not
    sum to 1, such as counts, is divided by its sum, which is said.

    Raises:
        UserError: There is no such file, it is neither, or names other classes, or a number is not positive.
    """
    if not file.exists():
        raise UserError(
            f"no such file; allowed: {UNIFORM}, {TRAIN}, or a CSV or JSON file with a prior for each class",
            where=str(file),
        )
    try:
        text = artifacts.present(file).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UserError("is not UTF-8 text", where=str(file)) from None
    pairs = _of_json(text, file) if text.lstrip().startswith("{") else _of_csv(text, file)
    given: dict[str, object] = {}
    for name, value in pairs:
        if name in given:
            raise UserError(f"names the class {_shown(name)} twice", where=str(file))
        given[name] = value
    return prior_of(given, classes, where=str(file))


def asked(text: str, classes: Sequence[str], *, here: Path) -> str | dict[str, float]:
    """Return what `--prior` of `export` means: a word as it is, or what the file of that name says, by class.

    Args:
        text: The word, or a file's path.
        classes: The classes of the model.
        here: What the path is relative to.

    Raises:
        UserError: It is neither a word nor a file that can be used.
    """
    if text in {UNIFORM, TRAIN}:
        return text
    return dict(zip(classes, read_prior(here / text, classes).tolist(), strict=True))


def prior_of(given: Mapping[str, object], classes: Sequence[str], *, where: str) -> Prior:
    """Return the prior (C,) that a mapping from class names to numbers gives, divided by its sum, which is said.

    Raises:
        UserError: The names are not the classes, or a number is not positive.
    """
    strangers = [name for name in given if name not in set(classes)]
    missing = [name for name in classes if name not in given]
    if strangers:
        raise UserError(f"names what is no class of the model: {some(strangers)}", where=where)
    if missing:
        raise UserError(f"has no prior for {some(missing)}; each class of the model needs one", where=where)
    prior = np.array([_positive(given[name], name, where) for name in classes])
    total = sum(prior.tolist())  # NumPy would warn of infinity
    if not math.isfinite(total):
        raise UserError("its numbers sum to infinity", where=where)
    if abs(total - 1) > _ROUNDING:
        console.say(f"{where}: the priors sum to {total:.6g}, and are divided by it")
    prior /= total
    if prior.min() < _LEAST_SHARE:
        name = classes[int(prior.argmin())]
        raise UserError(f"the prior of {_shown(name)} is less than {_LEAST_SHARE:g} of the sum", where=where)
    return prior


def prior_of_word(word: str, class_counts: Sequence[int], classes: Sequence[str], *, where: str) -> Prior:
    """Return the prior (C,) that `uniform` or `train` stands for.

    Raises:
        UserError: A class has no training image, so that its prior would be zero.
    """
    counts = np.array(class_counts, dtype=np.int64)
    absent = [name for name, count in zip(classes, class_counts, strict=True) if count == 0]
    if word == TRAIN and absent:
        raise UserError(
            f"train has no image of {some(absent)}, whose prior would be 0; allowed: {UNIFORM}, or a file", where=where
        )
    return counted_prior(counts, 1.0 if word == TRAIN else 0.0)


def _of_json(text: str, file: Path) -> Iterable[tuple[str, object]]:
    try:
        content = json.loads(text, object_pairs_hook=list)
    except (ValueError, RecursionError) as error:
        raise UserError(f"is no JSON object ({shortened(str(error), _LONGEST)})", where=str(file)) from None
    return content  # type: ignore[no-any-return]


def _of_csv(text: str, file: Path) -> Iterable[tuple[str, object]]:
    try:
        header, *rows = [row for row in csv.reader(text.splitlines(keepends=True), strict=True) if row] or [[]]
    except csv.Error as error:
        raise UserError(f"is no CSV table ({error})", where=str(file)) from None
    if [cell.strip() for cell in header] != [*COLUMNS]:
        raise UserError(
            f"has the header {_shown(','.join(header))}; wanted: {','.join(COLUMNS)}, or a JSON object"
            ' {"class": prior}',
            where=str(file),
        )
    odd = next((row for row in rows if len(row) != len(COLUMNS)), None)
    if odd is not None:
        raise UserError(f"has the row {_shown(','.join(odd))}; wanted: a class and its prior", where=str(file))
    return [(artifacts.plain_text(name), value) for name, value in rows]


def _positive(value: object, name: str, where: str) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not 0 < number < math.inf:
        raise UserError(f"the prior of {_shown(name)} is {_shown(value)}; allowed: a number above 0", where=where)
    return number


def _shown(value: object) -> str:
    return shortened(repr(value), _LONGEST)
