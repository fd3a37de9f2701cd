"""Says which tensors do not fit a network: all of them, in a line that can still be read."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import Tensor

    Row = tuple[tuple[str, ...], ...]

COUNTER = "num_batches_tracked"


def tensor_mismatches(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    """Return a line of what is missing, unexpected or of another shape; empty where all fits.

    Batch norm's counters may be missing: PyTorch before 0.4.1 wrote none, and nothing here reads them.
    """
    shapes: dict[str, list[str]] = {}
    for name in wanted:
        if name in given and given[name].shape != wanted[name].shape:
            shapes.setdefault(f"{tuple(given[name].shape)} instead of {tuple(wanted[name].shape)}", []).append(name)
    missing = [name for name in wanted if name not in given and not name.endswith(COUNTER)]
    unexpected = [name for name in given if name not in wanted]
    said = [
        f"{len(names)} {what}: {compact(names)}"
        for what, names in (("missing", missing), ("unexpected", unexpected))
        if names
    ]
    if shapes:
        count = sum(map(len, shapes.values()))
        said.append(f"{count} of another shape: {', '.join(f'{compact(of)} {shape}' for shape, of in shapes.items())}")
    return "; ".join(said)


def compact(names: Iterable[str]) -> str:
    """Return dotted names with those drawn together that differ in one place: `layer1.{0-2}.{bn1,bn2}.weight`."""
    rows: list[Row] = [tuple((part,) for part in name.split(".")) for name in names]
    for place in reversed(range(max(map(len, rows), default=0))):
        together: dict[tuple[Row, Row | None], list[str]] = {}
        for row in rows:
            if place < len(row):
                together.setdefault((row[:place], row[place + 1 :]), []).extend(row[place])
            else:
                together[row, None] = []
        rows = [
            before if after is None else (*before, tuple(parts), *after) for (before, after), parts in together.items()
        ]
    return ", ".join(".".join(_alternatives(parts) for parts in row) for row in rows)


def _alternatives(parts: tuple[str, ...]) -> str:
    if len(parts) == 1:
        return parts[0]
    if not all(part.isdecimal() for part in parts):
        return f"{{{','.join(parts)}}}"
    numbers = sorted(map(int, parts))
    # Neighbours keep their distance to their place in the row.
    runs = [[number for _, number in run] for _, run in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0])]
    return f"{{{','.join(str(run[0]) if len(run) == 1 else f'{run[0]}-{run[-1]}' for run in runs)}}}"
