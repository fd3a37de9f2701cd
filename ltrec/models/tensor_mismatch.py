"""Says which tensors do not fit a network, in one line that can still be read."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from ltrec import console

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import Tensor

    Row = tuple[tuple[str, ...], ...]

COUNTER = "num_batches_tracked"
"""How the names of batch norm's counters end."""


def tensor_mismatches(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], where: str) -> str:
    """Return a line of what is missing, unexpected or of another shape; it is empty where all fits.

    Of very many names the first are in it, and with `--verbose` all are printed before; `where` says there of which
    file they are.

    Batch norm's counters may be missing: PyTorch before 0.4.1 wrote none, and nothing here reads them.
    """
    missing = [name for name in expected if name not in tensors and not name.endswith(COUNTER)]
    unexpected = [name for name in tensors if name not in expected]
    by_shapes: dict[str, list[str]] = {}
    for name in expected:
        if name in tensors and tensors[name].shape != expected[name].shape:
            shapes = f"{tuple(tensors[name].shape)} instead of {tuple(expected[name].shape)}"
            by_shapes.setdefault(shapes, []).append(name)
    parts = [
        f"{len(names):,} {what}: {console.first_five(compact(names), f'{where}: {what}')}"
        for what, names in (("missing", missing), ("unexpected", unexpected))
        if names
    ]
    if by_shapes:
        count = sum(map(len, by_shapes.values()))
        listed = [f"{', '.join(compact(names))} {shapes}" for shapes, names in by_shapes.items()]
        parts.append(f"{count:,} of another shape: {console.first_five(listed, f'{where}: of another shape')}")
    return "; ".join(parts)


def compact(names: Iterable[str]) -> list[str]:
    """Return dotted names in short: those that differ in one part are one, as `layer1.{0-2}.{bn1,bn2}.weight`."""
    rows: list[Row] = [tuple((part,) for part in name.split(".")) for name in names]
    for column in reversed(range(max(map(len, rows), default=0))):
        # What stands in this column, by all that stands before and after it; names that end before it stay alone.
        merged: dict[tuple[Row, Row | None], list[str]] = {}
        for row in rows:
            if column < len(row):
                merged.setdefault((row[:column], row[column + 1 :]), []).extend(row[column])
            else:
                merged[row, None] = []
        rows = [
            before if after is None else (*before, tuple(parts), *after) for (before, after), parts in merged.items()
        ]
    return [".".join(_alternatives(parts) for parts in row) for row in rows]


def _alternatives(parts: tuple[str, ...]) -> str:
    if len(parts) == 1:
        return parts[0]
    if not all(part.isdecimal() for part in parts):
        return f"{{{','.join(parts)}}}"
    numbers = sorted(map(int, parts))
    # Within a run of neighbours a number less its index stays the same.
    runs = [[number for _, number in run] for _, run in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0])]
    return f"{{{','.join(str(run[0]) if len(run) == 1 else f'{run[0]}-{run[-1]}' for run in runs)}}}"
