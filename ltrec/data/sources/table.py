"""A table of images: a CSV or Parquet file with a path and a label in each row."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ltrec.data.image_lists import ImageList
from ltrec.data.sources.annotations import annotation_file, listed, without_repeats
from ltrec.data.sources.collection import Collection, Skipped
from ltrec.data.sources.folder import natural_key
from ltrec.errors import UserError, one_line, some
from ltrec.settings import Settings, Text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ltrec.artifacts import Split

_SPLIT_NAMED: dict[str, Split] = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}


class CsvSource(Settings):
    """A CSV or Parquet file with a row for each image; columns go by their names."""

    kind: Literal["csv"]
    root: Text = "data"
    """The folder that the paths, and `file`, are relative to."""
    file: Text
    """The table; a name that ends with .parquet is read as Parquet, any other as comma-separated UTF-8 text."""
    path: Text = "path"
    """The column of the images' paths."""
    label: Text = "label"
    """The column of the class names or numbers; classes are numbered in natural order, 2 before 10."""
    split: Text | None = None
    """The column that says train, val (or valid, validation) or test; null: val and test are carved from train."""

    def scan(self) -> Collection:
        file = annotation_file(Path(self.root), self.file)
        wanted = [self.path, self.label, *([self.split] if self.split else [])]
        columns = read_columns(file, wanted)
        return collect(*(columns[name] for name in wanted), where=str(file))


def collect(
    paths: Sequence[str], labels: Sequence[str], splits: Sequence[str] | None = None, *, where: str
) -> Collection:
    """From columns of equal length to classes and splits; an image that comes twice in a split counts once.

    Args:
        paths: The images' paths, relative to the root.
        labels: Their class names; whole numbers are names, too.
        splits: Where each image belongs; None: all to train.
        where: The file's name, for messages.

    Raises:
        UserError: a path that no list can hold, a negative label, an unknown split, no image to train on, or an
            image with two classes.
    """
    classes = sorted(set(labels), key=natural_key)
    if negative := [name for name in classes if re.fullmatch(r"-[0-9]+", name)]:
        raise UserError(
            f"negative label(s) {some(negative)}: classes count from 0 or have names;"
            " images of no class belong to prepare.openset",
            where=where,
        )
    label_of = {name: label for label, name in enumerate(classes)}
    images = ImageList(listed(paths, "row {}", where), np.array([label_of[name] for name in labels], dtype=np.int64))
    found: dict[Split, ImageList] = {}
    skipped: list[Skipped] = []
    for split, mask in _masks(splits, len(images), where).items():
        found[split], repeats = without_repeats(images.where(mask), classes, where)
        skipped += repeats
    return Collection(tuple(classes), found, tuple(skipped))


def _masks(splits: Sequence[str] | None, count: int, where: str) -> dict[Split, np.ndarray[Any, np.dtype[np.bool_]]]:
    """The rows of each split that has any."""
    if splits is None:
        return {"train": np.ones(count, dtype=np.bool_)}
    of_row = [_SPLIT_NAMED.get(name.strip().casefold()) for name in splits]
    unknown = [f"row {row} '{splits[row - 1]}'" for row, split in enumerate(of_row, start=1) if split is None]
    if unknown:
        raise UserError(
            f"{len(unknown)} unknown split(s): {some(unknown)}; allowed: {', '.join(_SPLIT_NAMED)}", where=where
        )
    if "train" not in of_row:
        raise UserError("no row says train", where=where)
    present = [split for split in dict.fromkeys(_SPLIT_NAMED.values()) if split in of_row]
    return {split: np.array([row == split for row in of_row], dtype=np.bool_) for split in present}


def read_columns(file: Path, wanted: Sequence[str]) -> dict[str, list[str]]:
    """Some columns of a table as text.

    Raises:
        UserError: not such a file, a column is not there or there twice, it has no rows, or cells are empty or
            decimal numbers.
    """
    import pandas as pd

    where = str(file)
    names_of, table_of = (_parquet_names, _parquet) if file.suffix.lower() == ".parquet" else (_csv_names, _csv)
    try:
        _check_names(names_of(file), wanted, where)
        table = table_of(file, wanted)
    except pd.errors.ParserWarning:
        raise UserError(
            "cannot be read as a table (rows have more cells than the header; text with commas needs quotes)",
            where=where,
        ) from None
    except (ValueError, OSError) as error:  # Arrow calls a damaged page an OSError
        raise UserError(f"cannot be read as a table ({one_line(error)})", where=where) from None
    if not len(table):
        raise UserError("has no rows", where=where)
    return {name: _as_text(table[name], where) for name in wanted}


def _check_names(names: Sequence[str], wanted: Sequence[str], where: str) -> None:
    absent = " and ".join(f"'{name}'" for name in wanted if name not in names)
    twice = " and ".join(f"'{name}'" for name in wanted if names.count(name) > 1)
    there = ", ".join(f"'{name}'" for name in names)
    if absent:
        raise UserError(f"has no column {absent} (prepare.source); its columns are {there}", where=where)
    if twice:
        raise UserError(f"has more than one column {twice}; its columns are {there}", where=where)


def _csv_names(file: Path) -> list[str]:
    import pandas as pd

    # As a row: of two columns with the same name pandas would call the second another one.
    return list(pd.read_csv(file, dtype=str, keep_default_na=False, header=None, nrows=1, encoding="utf-8-sig").iloc[0])


def _csv(file: Path, _: Sequence[str]) -> Any:
    import pandas as pd

    with warnings.catch_warnings():
        # A row with a comma too many, as in a path without quotes, would move or drop cells.
        warnings.simplefilter("error", pd.errors.ParserWarning)
        # A class may be called NA or null, and 007 is not 7.
        return pd.read_csv(file, dtype=str, keep_default_na=False, index_col=False, encoding="utf-8-sig")


def _parquet_names(file: Path) -> list[str]:
    from pyarrow import parquet

    return list(parquet.read_schema(file).names)


def _parquet(file: Path, wanted: Sequence[str]) -> Any:
    from pyarrow import parquet

    # Without pandas' own notes in the file, which may call a column an index.
    return parquet.read_table(file, columns=list(wanted)).to_pandas(ignore_metadata=True)


def _as_text(column: Any, where: str) -> list[str]:
    from pandas.api.types import is_float_dtype

    text = column.astype(str)
    empty = (column.isna() | (text.str.strip() == "")).to_numpy()
    if empty.any():
        rows = some([f"row {row}" for row in (np.flatnonzero(empty) + 1).tolist()])
        raise UserError(f"column '{column.name}' has {empty.sum():,} empty cell(s): {rows}", where=where)
    if is_float_dtype(column.dtype):
        raise UserError(f"column '{column.name}' holds decimal numbers; allowed: text or whole numbers", where=where)
    return list(text.tolist())
