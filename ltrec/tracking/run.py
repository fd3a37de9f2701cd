"""Where stages tell what they do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path


class Run:
    """Where a stage tells what it does; this one forgets it all."""

    def params(self, params: Mapping[str, Any]) -> None:
        """Nested mappings become dotted names."""

    def metrics(self, metrics: Mapping[str, float | None], step: int | None = None) -> None:
        """Figures, or with a step a point of a curve; None is left out.

        Of a figure the last value counts. Of a point the first does: a resumed training may tell its epochs again.
        """

    def history(self, rows: Iterable[Mapping[str, Any]], prefix: str) -> None:
        """Record curves, a row an epoch with its number under `epoch`."""
        for row in rows:
            values = {f"{prefix}/{name}": float(value) for name, value in row.items() if name != "epoch"}
            self.metrics(values, step=int(float(row["epoch"])))

    def tags(self, tags: Mapping[str, Any]) -> None:
        """Record tags; of several values the last counts."""

    def file(self, path: Path, folder: str = "") -> None:
        """Record a file, or a folder with all that is in it; a copy is kept until it is sent."""

    def model(self, path: Path, tags: Mapping[str, str] | None = None, alias: str = "champion") -> None:
        """Record an ONNX file to be logged, registered with these tags, and given an alias."""
