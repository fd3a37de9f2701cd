"""A table of images: a CSV or Parquet file with a path and a label in each row."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator

from ltrec.artifacts import SPLITS
from ltrec.data.image_lists import ImageList
from ltrec.data.sources.annotations import annotation_file, collection_of, listable_paths
from ltrec.data.sources.csv_text import known_encoding, read_csv
from ltrec.data.sources.folder import natural_key
from ltrec.errors import UserError, one_line, shortened, some
from ltrec.settings import Settings, Text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ltrec.artifacts import Split
    from ltrec.data.sources.collection import Collection

_SPLITS: dict[str, Split] = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""The splits by the names that a table may give them."""
_MOST_ROWS = 10**8
_MOST_COLUMNS, _LONGEST = 20, 60  # names of columns that a message lists, and characters of each


class CsvSource(Settings):
    """A CSV or Parquet file with a row for each image; columns go by their names."""

    kind: Literal["csv"]
    root: Text = "data"
    """The folder that the paths, and `file`, are relative to."""
    file: Text
    """The table; a name that ends with .parquet is read as Parquet, any other as text: CSV."""
    encoding: Annotated[Text, AfterValidator(known_encoding)] | None = None
    """The encoding of the text, such as cp1252; null: UTF-8, or UTF-16 where the file shows that it is."""
    path: Text = "path"
    """The column of the images' paths."""
    label: Text = "label"
    """The column of the class names or numbers; classes are numbered in natural order, 2 before 10."""
    split: Text | None = None
    """The column that says train, val (or valid, validation) or test; null: val and test are carved from train."""
    names: dict[Text, Text] = {}
    """What classes are called where they are shown, as `label: name`."""

    def scan(self, *, group: str | None = None) -> Collection:
        """Return the table's classes and splits; an image that comes twice in a split counts once.

        `group` is the column of the images' groups.

        Raises:
            UserError: not such a table, a path that no list can hold, a negative label, an unknown split, no image to
                train on, or an image with two classes.
        """
        file = annotation_file(Path(self.root), self.file)
        wanted = [self.path, self.label, *filter(None, [self.split, group])]
        columns = read_columns(file, wanted, self.encoding)
        names = columns[self.label]
        classes = sorted(set(names), key=natural_key)
        if negative := [name for name in classes if re.fullmatch(r"-[0-9]+", name)]:
            raise UserError(
                f"negative label(s) {some(negative)}: classes count from 0 or have names;"
                " images of no class belong to prepare.openset",
                where=str(file),
            )
        labels = {name: label for label, name in enumerate(classes)}
        paths = listable_paths(columns[self.path], "row {}", str(file))
        images = ImageList(paths, np.array([labels[name] for name in names], dtype=np.int64))
        lists: dict[Split, ImageList] = {"train": images}
        if self.split:
            rows = _rows_of_splits(columns[self.split], str(file))
            lists = {split: images.where(mask) for split, mask in rows.items()}
        found = collection_of(classes, {split: (of_split, file) for split, of_split in lists.items()})
        groups = dict(zip(paths, columns[group], strict=True)) if group else {}
        return replace(found.called(self.names), groups=groups)


def _rows_of_splits(names: Sequence[str], where: str) -> dict[Split, NDArray[np.bool_]]:
    """Return which of the N rows belong to each split that has any, (N,), by the names that the rows give it."""
    of_row = [_SPLITS.get(name.strip().casefold()) for name in names]
    unknown = [f"row {row} '{names[row - 1]}'" for row, split in enumerate(of_row, start=1) if split is None]
    if unknown:
        raise UserError(f"{len(unknown)} unknown split(s): {some(unknown)}; allowed: {', '.join(_SPLITS)}", where=where)
    if "train" not in of_row:
        raise UserError("no row says train", where=where)
    used = [split for split in SPLITS if split in of_row]
    return {split: np.array([row == split for row in of_row], dtype=np.bool_) for split in used}


def read_columns(file: Path, wanted: Sequence[str], encoding: str | None = None) -> dict[str, list[str]]:
    """Return the wanted columns of a table as text, by name; `encoding` is that of a CSV file.

    Raises:
        UserError: the file is no table, a column is not there or there twice, there are no rows, or cells are empty
            or decimal numbers.
    """
    import pandas as pd

    where = str(file)
    try:
        if file.suffix.lower() == ".parquet":
            table = _read_parquet(file, wanted)
        else:
            table = read_csv(file, wanted, encoding, lambda names: _check_names(names, wanted, where))
    except pd.errors.ParserWarning:
        raise UserError(
            "cannot be read as a table (rows have more cells than the header; text with commas needs quotes)",
            where=where,
        ) from None
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001 - out of a damaged Parquet file comes almost anything
        raise UserError(f"cannot be read as a table ({one_line(error)})", where=where) from None
    if not len(table):
        raise UserError("has no rows", where=where)
    return {name: _as_text(table[name], where) for name in wanted}


def _check_names(names: Sequence[str], wanted: Sequence[str], where: str) -> None:
    absent = " and ".join(f"'{name}'" for name in wanted if name not in names)
    repeated = " and ".join(f"'{name}'" for name in wanted if names.count(name) > 1)
    first = ", ".join(shortened(f"'{name}'", _LONGEST) for name in names[:_MOST_COLUMNS])
    more = f" and {len(names) - _MOST_COLUMNS:,} more" if len(names) > _MOST_COLUMNS else ""
    if absent:
        raise UserError(f"has no column {absent} (prepare.source); its columns are {first}{more}", where=where)
    if repeated:
        raise UserError(f"has more than one column {repeated}; its columns are {first}{more}", where=where)


def _read_parquet(file: Path, wanted: Sequence[str]) -> Any:
    from pyarrow import parquet, string, types

    metadata = parquet.read_metadata(file)
    _check_names(metadata.schema.to_arrow_schema().names, wanted, str(file))
    # A column of one value is a few bytes, whatever the number of rows.
    if metadata.num_rows > _MOST_ROWS:
        raise UserError(f"has {metadata.num_rows:,} rows; allowed: {_MOST_ROWS:,}", where=str(file))
    table = parquet.read_table(file, columns=list(wanted))
    for place, column in enumerate(table.schema):
        if types.is_nested(column.type):
            raise UserError(
                f"column '{column.name}' holds {column.type}; allowed: text or whole numbers", where=str(file)
            )
        if types.is_binary(column.type) or types.is_large_binary(column.type):
            table = table.set_column(place, column.name, table.column(place).cast(string()))
    table.validate(full=True)  # that text is UTF-8, and that what lies where stays inside of the file
    # pandas' own notes in the file are ignored: they may call a column an index.
    return table.to_pandas(ignore_metadata=True)


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
