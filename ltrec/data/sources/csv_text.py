"""Reading CSV files as the programs of many countries write them, without a guess that could garble a class's name.

The encoding is the one that `prepare.source.encoding` names; else that of the byte-order mark; else UTF-16 where the
header has the wanted columns in it; else UTF-8. Text is decoded strictly: what is not of that encoding is refused,
since nearly any bytes can be read as cp1252, cp1250 and a dozen others, each time with other letters. Cells are
separated by the first of comma, semicolon and tab by which the header has the wanted columns.
"""

from __future__ import annotations

import codecs
import contextlib
import re
import warnings
from typing import TYPE_CHECKING, Any

from ltrec import console
from ltrec.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

_LONGEST_HEADER = 1 << 16
_LONGEST_CELL = 30  # bytes before and behind the one that cannot be decoded
_BLOCK = 1 << 20
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
# UTF-32 begins with the mark of UTF-16, and stands before it.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
_USUAL = "utf-8-sig"


def known_encoding(name: str) -> str:
    """Return the name of an encoding of text.

    Raises:
        ValueError: there is no such encoding.
    """
    try:
        "".encode(name)
    except LookupError:
        raise ValueError(
            "no such encoding; usual ones are utf-8, utf-16, cp1252, latin-1, shift_jis, gb18030"
        ) from None
    return name


def read_csv(
    file: Path, wanted: Sequence[str], encoding: str | None, check_names: Callable[[Sequence[str]], None]
) -> Any:
    """Return a CSV file's rows as a pandas table of text; in one line it says what is unusual about the file.

    Args:
        file: The file.
        wanted: The columns that there must be.
        encoding: The encoding; None: by the rule above.
        check_names: Raises for the names of columns among which the wanted ones are not.

    Raises:
        UserError: the file has no such columns, a first line that is too long, or text that cannot be decoded.
    """
    import pandas as pd

    with file.open("rb") as opened:
        beginning = opened.read(_LONGEST_HEADER + 1)
    # With ten thousands of columns pandas is at work for minutes.
    if len(beginning) > _LONGEST_HEADER and not {*b"\r\n"} & {*beginning}:
        raise UserError(f"has a first line of more than {_LONGEST_HEADER:,} bytes", where=str(file))
    found = encoding or _encoding(beginning, wanted)
    # A class may be called NA or null, and 007 is not 7.
    options: dict[str, Any] = {"dtype": str, "keep_default_na": False, "encoding": found}
    try:
        separator, names = _header(file, wanted, options)
        check_names(names)
        with warnings.catch_warnings():
            # A row with a comma too many, as in a path without quotes, would move or drop cells.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(file, index_col=False, sep=separator, **options)
    except UnicodeError:
        raise UserError(_not_decodable(file, found, is_given=encoding is not None), where=str(file)) from None
    unusual = [f"as {found}"] if found != _USUAL and encoding is None else []
    unusual += [f"with cells between {_SEPARATORS[separator]}"] if separator != "," else []
    if unusual:
        console.say(f"prepare: {file} is read {', '.join(unusual)}")
    return table


def _header(file: Path, wanted: Sequence[str], options: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Return what separates the cells, and the names of the columns; comma, where no sign gives the wanted ones."""
    import pandas as pd

    headers: dict[str, list[str]] = {}
    for sign in _SEPARATORS:
        # As a line with semicolons a header with commas may be nonsense.
        with contextlib.suppress(*([pd.errors.ParserError] if headers else [])):
            # Read as a row: in a header pandas would rename the second of two columns with the same name.
            headers[sign] = list(pd.read_csv(file, header=None, nrows=1, sep=sign, **options).iloc[0])
            if {*wanted} <= {*headers[sign]}:
                return sign, headers[sign]
    return ",", headers[","]


def _encoding(beginning: bytes, wanted: Sequence[str]) -> str:
    """Return the encoding of a file by its first bytes."""
    for mark, name in _MARKS:
        if beginning.startswith(mark):
            return name
    for name in ("utf-16-le", "utf-16-be") if b"\0" in beginning else ():
        first = beginning.decode(name, "ignore").partition("\n")[0]
        if all(column in first for column in wanted):
            return name
    return _USUAL


def _not_decodable(file: Path, encoding: str, *, is_given: bool) -> str:
    """Return what is said of a file that is not of an encoding: the first cell that shows it, and how it looks."""
    name = "UTF-8" if encoding == _USUAL else encoding
    cell = _first_undecodable_cell(file, encoding)
    shown = ascii(cell)[1:]
    if is_given or encoding != _USUAL:
        return f"cannot be read as a table (is not {name}: it has {shown})"
    try:
        looks = f", which would be {cell.decode('cp1252')!r} in cp1252, the encoding of Windows"
    except UnicodeDecodeError:
        looks = ", which is not cp1252, the encoding of Windows, either"
    return (
        f"cannot be read as a table (is not {name}: it has {shown}{looks}); save it as UTF-8, or say what it is:"
        " prepare.source.encoding"
    )


def _first_undecodable_cell(file: Path, encoding: str) -> bytes:
    """Return what stands around the first bytes that cannot be decoded, as far as the cell goes."""
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        with file.open("rb") as opened:
            while block := opened.read(_BLOCK):
                decoder.decode(block)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        before, behind = error.object[: error.start], error.object[error.start :]
        left, right = re.split(rb"[,;\t\r\n]", before)[-1], re.split(rb"[,;\t\r\n]", behind)[0]
        return left[-_LONGEST_CELL:] + right[:_LONGEST_CELL]
    return b""
