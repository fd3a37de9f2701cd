"""A run's record on disk: append-only lines and copies of files. No MLflow here."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from ltrec import project
from ltrec.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]


class Run:
    """Where a stage tells what it does; this one forgets it all."""

    def params(self, params: Mapping[str, Any]) -> None:
        """Nested mappings become dotted names."""

    def metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """The first value of a (name, step) counts."""

    def history(self, rows: Iterable[Mapping[str, Any]], prefix: str) -> None:
        """A row an epoch, with its number under `epoch`."""
        for row in rows:
            values = {f"{prefix}/{name}": float(value) for name, value in row.items() if name != "epoch"}
            self.metrics(values, step=int(float(row["epoch"])))

    def tags(self, tags: Mapping[str, str]) -> None:
        """The last value counts."""

    def file(self, path: Path, folder: str = "") -> None:
        """A copy is kept until it is sent."""

    def model(self, path: Path, alias: str = "champion") -> None:
        """An ONNX file to log, register and give an alias."""


NoRun = Run


@dataclass
class Content:
    """What a record says, read back."""

    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    metrics: dict[tuple[str, int], tuple[float, int]] = field(default_factory=dict)
    """(name, step) → (value, milliseconds since 1970)."""
    files: dict[str, str] = field(default_factory=dict)
    """Name of the copy → folder in the run's artifacts."""
    model: dict[str, str] | None = None
    status: Status = "RUNNING"


class Record(Run):
    """One run's record.

    Args:
        folder: Where it lies; one run, one folder.
        about: Stage, variant, and the tracking settings it was made under.
    """

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        self.folder = folder
        self.stage: str = about["stage"]
        self.variant: str | None = about["variant"]
        self.settings: dict[str, Any] = about["settings"]
        self.state = folder.parent.name
        self._lines = folder / "lines.jsonl"
        self._files = folder / "files"

    @classmethod
    def open(cls, state: Path, *, stage: str, variant: str | None, settings: dict[str, Any]) -> Self:
        """The record of a stage in a state's folder, new or continued."""
        folder = state / (f"{stage}@{variant}" if variant else stage)
        folder.mkdir(parents=True, exist_ok=True)
        about = {"stage": stage, "variant": variant, "settings": settings}
        (folder / "about.json").write_text(json.dumps(about), encoding="utf-8")
        record = cls(folder, about)
        # A killed process may have left half a line: what comes must not become part of it.
        with record._lines.open("ab") as lines:
            lines.write(b"\n")
        return record

    @classmethod
    def pending(cls, tracking: Path) -> list[Self]:
        """The records that MLflow does not have in full, oldest first, without those that are being written."""
        found = []
        for about in sorted(tracking.glob("*/*/about.json"), key=lambda file: file.stat().st_mtime):
            with contextlib.suppress(OSError, ValueError, KeyError):
                record = cls(about.parent, json.loads(about.read_text(encoding="utf-8")))
                if not record.in_use():
                    found.append(record)
        return found

    @property
    def name(self) -> str:
        return self.variant or self.stage

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """While a stage writes here, others leave the record alone."""
        with project.lock(self._lock_file):
            yield

    def in_use(self) -> bool:
        try:
            with project.lock(self._lock_file, patience=0):
                return False
        except UserError:
            return True

    @property
    def _lock_file(self) -> Path:
        # Beside the folder: that goes when all is sent, the lock must not.
        return self.folder.with_name(f".{self.folder.name}.lock")

    def params(self, params: Mapping[str, Any]) -> None:
        self._append("params", {name: _text(value) for name, value in _flat(params)})

    def metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        self._append("metrics", dict(metrics), step=step, time=int(time.time() * 1000))

    def tags(self, tags: Mapping[str, str]) -> None:
        self._append("tags", dict(tags))

    def status(self, status: Status) -> None:
        self._append("status", status)

    def file(self, path: Path, folder: str = "") -> None:
        self._append("file", self._copy(path, Path(folder) / path.name), folder=folder)

    def model(self, path: Path, alias: str = "champion") -> None:
        self._append("model", self._copy(path, Path("model") / path.name), alias=alias)

    def read(self) -> Content:
        """Everything said so far; a last line that a killed process left torn is passed over."""
        content = Content()
        with self._lines.open(encoding="utf-8") as lines:
            for line in filter(str.strip, lines):
                with contextlib.suppress(json.JSONDecodeError):
                    _take(json.loads(line), content)
        return content

    def exists(self) -> bool:
        return self._lines.is_file()

    def copy_of(self, name: str) -> Path:
        return self._files / name

    def remove(self) -> None:
        """MLflow has it all."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _append(self, kind: str, what: object, **more: object) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._lines.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps({"kind": kind, "what": what, **more}) + "\n")

    def _copy(self, path: Path, relative: Path) -> str:
        target = self._files / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        return relative.as_posix()


def _take(line: dict[str, Any], content: Content) -> None:
    what = line["what"]
    match line["kind"]:
        case "params":
            content.params.update(what)
        case "tags":
            content.tags.update(what)
        case "metrics":
            for name, value in what.items():
                content.metrics.setdefault((name, line["step"]), (value, line["time"]))
        case "file":
            content.files[what] = line["folder"]
        case "model":
            content.model = {"file": what, "alias": line["alias"]}
        case "status":
            content.status = what


def _flat(params: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in params.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _text(value: object) -> str:
    # MLflow takes up to 6000 characters; a longer list is recognisable by its beginning.
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 500 else text[:499] + "…"
