"""What stages tell of a run, on disk: append-only lines and copies of files. MLflow is not needed here.

Each stage that tells something of a run begins a record of its own beside those that are there, so that nothing can
keep it from writing: neither another stage nor a sender that waits for the network.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import math
import os
import re
import shutil
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from ltrec import artifacts, console, project
from ltrec.tracking.run import Run

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import BinaryIO

Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]

# Stages that may be run again on the same pipeline with other params: MLflow lets no param change, but a tag.
_REPEATABLE = {"export"}


@dataclass(frozen=True)
class About:
    """What a record's run is."""

    stage: str
    variant: str | None
    nested: bool
    """True if it has a run of its own under the pipeline's; False if it writes on the pipeline's."""
    pipeline: str
    """Name of the pipeline's run."""
    experiment: str
    model: str
    """The name to register a model under."""
    sender: str = ""
    """Key of the sender that sends it while it is written; afterwards any sender may."""
    sample: bool = False
    """Whether the machine's load is sampled while it is written."""

    @property
    def name(self) -> str:
        return f"{self.stage}@{self.variant}" if self.variant else self.stage


@dataclass
class Content:
    """What a record says, read back; times are milliseconds since 1970."""

    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    metrics: dict[tuple[str, int | None], tuple[float, int]] = field(default_factory=dict)
    """(name, step) → (value, time); a figure has no step."""
    files: dict[str, str] = field(default_factory=dict)
    """Name of the copy → folder in the run's artifacts."""
    model: dict[str, Any] | None = None
    """The copy's name, tags and alias."""
    status: Status = "RUNNING"
    started: int | None = None
    ended: int | None = None


class Record(Run):
    """What one stage tells of a run, in a folder of its own; a run may have several, which are sent in their order.

    Who writes it holds a lock on its lines until it is released or the process ends. Who sends it holds another one,
    which the records of a run share.
    """

    def __init__(self, folder: Path, about: About) -> None:
        self.folder = folder
        self.state = folder.parent.name
        self.about = about
        self._lines, self._files = folder / "lines.jsonl", folder / "files"
        # Beside the folder: that goes when all is sent, the lock must not go before it.
        self._sending_lock = folder.with_name(f".{about.name}.lock")
        self._writing: BinaryIO | None = None
        self._mute = False

    @classmethod
    def start(cls, state: Path, about: About) -> Self:
        """Begin a record in the folder of a pipeline's state.

        Raises:
            OSError: nothing can be written there.
        """
        record = cls(_new_folder(state, about.name), about)
        try:
            record._writing = record._lines.open("ab", buffering=0)
            fcntl.flock(record._writing, fcntl.LOCK_EX)
            artifacts.write_json(record.folder / "about.json", asdict(about))  # now a sender sees it
        except OSError:
            record.release()
            shutil.rmtree(record.folder, ignore_errors=True)
            record._remove_empty_state()
            raise
        return record

    @classmethod
    def at(cls, folder: Path) -> Self:
        """Return the record that lies there, not opened."""
        return cls(folder, About(**json.loads((folder / "about.json").read_text(encoding="utf-8"))))

    @classmethod
    def pending(cls, tracking: Path) -> list[Self]:
        """Return the records that MLflow may not have in full, oldest first."""
        found: list[tuple[int, Self]] = []
        for state in _entries(tracking):
            for folder in _entries(state):
                with contextlib.suppress(OSError, ValueError, TypeError):
                    found.append(((folder / "about.json").stat().st_mtime_ns, cls.at(folder)))
        return [record for _, record in sorted(found, key=lambda pair: pair[0])]

    @classmethod
    def finished(cls, tracking: Path) -> list[Self]:
        """Return those of the pending records that nobody writes any more, oldest first."""
        return [record for record in cls.pending(tracking) if not record.is_written()]

    def is_written(self) -> bool:
        """Return True while a process writes it; once released it is never opened again."""
        try:
            with self._lines.open("rb") as lines:
                fcntl.flock(lines, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except OSError:  # BlockingIOError: it is locked; after another nobody knows, and it stays
            return True
        return False

    @contextlib.contextmanager
    def sending(self, patience: float) -> Iterator[bool]:
        """Yield True where it is this process's to send, False where it is gone.

        Args:
            patience: Seconds to wait for another process that sends something of the same run.

        Raises:
            UserError: that one is not done with it.
        """
        with project.lock(self._sending_lock, patience=patience):
            is_there = self._lines.exists()
            if not is_there:
                self.remove()
            yield is_there

    def release(self) -> None:
        """End the writing; what was told can now be sent in full."""
        if self._writing is not None:
            fcntl.flock(self._writing, fcntl.LOCK_UN)  # a forked process may still hold the file
            self._writing.close()
            self._writing = None

    def params(self, params: Mapping[str, Any]) -> None:
        flat = dict(_flat(params))
        if self.about.stage in _REPEATABLE:
            self.tags(flat)
        else:
            self._append("params", {_name(name): _text(value, 500) for name, value in flat.items()})

    def metrics(self, metrics: Mapping[str, float | None], step: int | None = None) -> None:
        values = {_name(name): float(value) for name, value in metrics.items() if value is not None}
        self._append("metrics", values, step=step)

    def sample(self, load: Mapping[str, float]) -> None:
        """Add the machine's load now: a curve over the seconds, so that a resumed run goes on with the same one."""
        self.metrics({f"system/{name}": value for name, value in load.items()}, step=int(time.time()))

    def tags(self, tags: Mapping[str, Any]) -> None:
        self._append("tags", {_name(name): _text(value, 5000) for name, value in tags.items()})

    def status(self, status: Status) -> None:
        self._append("status", status)

    def file(self, path: Path, folder: str = "") -> None:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                target = Path(folder, path.name) / file.relative_to(path)
                inside = target.parent.as_posix()
                self._keep(file, target, "files", folder="" if inside == "." else inside)

    def model(self, path: Path, tags: Mapping[str, str] | None = None, alias: str = "champion") -> None:
        self._keep(path, Path("model", path.name), "model", alias=alias, tags=dict(tags or {}))

    def size(self) -> int:
        """Return the bytes written so far; while they are the same, nothing new has been said."""
        return self._lines.stat().st_size

    def read(self) -> Content:
        """Return everything said so far; a line that a killed process left torn is passed over."""
        content = Content()
        with self._lines.open("rb") as lines:
            for line in filter(bytes.strip, lines):
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    _take(json.loads(line), content)
        return content

    def copy_of(self, name: str) -> Path:
        return self._files / name

    def remove(self) -> None:
        """Delete it, as MLflow has it all; only for who sends it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._sending_lock.unlink(missing_ok=True)
        self._remove_empty_state()

    def _remove_empty_state(self) -> None:
        with contextlib.suppress(OSError):
            self.folder.parent.rmdir()  # the state's last record

    def _append(self, kind: str, what: object, **more: object) -> None:
        line = json.dumps({"kind": kind, "what": what, "time": int(time.time() * 1000), **more}, default=str)
        # One write call: a kill tears at most this line, and stage and sender mix lines but not halves of them.
        with self._soft(), self._lines.open("ab", buffering=0) as lines:
            lines.write(line.encode() + b"\n")

    def _keep(self, file: Path, target: Path, kind: str, **more: object) -> None:
        with self._soft():
            with artifacts.replacing(self._files / target) as copy:
                shutil.copyfile(file, copy)
            self._append(kind, target.as_posix(), **more)

    @contextlib.contextmanager
    def _soft(self) -> Iterator[None]:
        """A full disk is the stage's matter, not the record's: say it once and go on."""
        try:
            yield
        except OSError as error:
            if not self._mute:
                console.warn(f"{self.folder}: cannot be written ({os.strerror(error.errno or 0)}); MLflow will lack it")
            self._mute = True


def _entries(folder: Path) -> list[Path]:
    """Return what lies in a folder; nothing where it is none, or has just gone."""
    try:
        return list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _new_folder(state: Path, name: str) -> Path:
    """Make and return a folder that no other record has."""
    for _ in range(100):
        folder = state / f"{name}.{time.time_ns():x}"
        # Another record began at the same instant, or a sender has just removed the state's last one.
        with contextlib.suppress(FileExistsError, FileNotFoundError):
            folder.mkdir(parents=True)
            return folder
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(state))


def _take(line: dict[str, Any], content: Content) -> None:
    what, when = line["what"], line["time"]
    match line["kind"]:
        case "params":
            content.params.update(what)
        case "tags":
            content.tags.update(what)
        case "metrics":
            for name, value in what.items():
                if line["step"] is None or (name, line["step"]) not in content.metrics:
                    content.metrics[name, line["step"]] = value, when
        case "files":
            content.files[what] = line["folder"]
        case "model":
            content.model = {"file": what, "alias": line["alias"], "tags": line["tags"]}
        case "status":
            content.status = what
            content.started = content.started or when
            content.ended = None if what == "RUNNING" else when


def _flat(params: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in params.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _name(name: str) -> str:
    # What MLflow allows in the name of a param, a metric or a tag.
    return re.sub(r"[^\w./: -]", "_", name, flags=re.ASCII)[:250]


def _text(value: object, longest: int) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= longest else text[: longest - 1] + "…"
