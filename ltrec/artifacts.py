"""Every path below `artifacts/`, and how files are saved and loaded: atomically, and without pickles."""

from __future__ import annotations

import contextlib
import csv
import fcntl
import glob
import hashlib
import json
import os
import re
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from ltrec.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import torch

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
# The inputs that an artifact's header may name, and what a message calls them.
_INPUTS = {"representation": "network", "images": "list of images"}
# What spreadsheets take for the beginning of a formula, also in full width and behind blanks.
_FORMULA = re.compile(r"'*\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|'*[\t\r\n]")
_IRREGULAR = {
    "a folder": stat.S_ISDIR,
    "a named pipe": stat.S_ISFIFO,
    "a socket": stat.S_ISSOCK,
    "a device": stat.S_ISCHR,
    "a block device": stat.S_ISBLK,
}
UNKNOWN = -1
"""The label of an image that shows no class of the task, in lists and feature banks of val and test."""


HISTORY = ("epoch", "loss", "accuracy", "val", "lr")
"""The columns of the learning curves, which the pipeline's plots name, in a training of no epochs too."""


class Layout:
    """Where each stage's artifacts lie, below `root`."""

    def __init__(self, root: Path = Path("artifacts")) -> None:
        self.root = root
        self.classes = root / "prepare" / "classes.txt"
        self.stats = root / "prepare" / "stats.json"
        self.cache_list = root / "prepare" / "train.cache.txt"  # which training images are read from smaller copies
        self.model = root / "represent" / "model.safetensors"
        self.history = root / "represent" / "history.csv"
        self.joint = root / "featurize" / "joint.safetensors"  # the head that every rebalancing method begins with
        self.evaluation = root / "evaluate"
        self.evaluation_metrics = root / "evaluate" / "metrics.json"
        self.plots = root / "evaluate" / "plots"
        self.onnx = root / "export" / "model.onnx"
        self.onnx_check = root / "export" / "check.json"

    def split_list(self, split: Split) -> Path:
        return self.root / "prepare" / f"{split}.txt"

    def split_digest(self, split: Split) -> Path:
        return self.root / "prepare" / f"{split}.digest.txt"

    def features(self, split: Split) -> Path:
        return self.root / "featurize" / f"{split}.safetensors"

    def head(self, variant: str) -> Path:
        return self.root / "rebalance" / variant / "head.safetensors"

    def head_metrics(self, variant: str) -> Path:
        return self.root / "rebalance" / variant / "metrics.json"


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` that takes its place only on success.

    An earlier file stays untouched when the block raises or the process is killed; what a killed process left behind
    is removed by the next write.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    fcntl.flock(handle, fcntl.LOCK_SH)  # until it is closed, it tells `_sweep` that a process is writing here
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        # mkstemp makes private files; artifacts are as readable as any other file.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except OSError as error:
        error.filename = error.filename or str(path)  # a full disk's error names none
        raise
    finally:
        os.close(handle)
        temporary.unlink(missing_ok=True)


def _sweep(path: Path) -> None:
    """Remove the temporaries of `path` that no living process holds."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        with contextlib.suppress(OSError), left.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            left.unlink()


def write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, content: object) -> None:
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Return the content of a JSON artifact.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        return json.loads(present(path).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"damaged JSON ({error}); delete it and run its stage again", where=str(path)) from None


def write_csv(path: Path, rows: Sequence[Mapping[str, object]], columns: Sequence[str] = ()) -> None:
    """Write rows that share their keys, each text as a `spreadsheet_cell`; floats keep every digit.

    Without rows the file has a header alone, of `columns`.
    """
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else columns, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow(
                {key: spreadsheet_cell(cell) if isinstance(cell, str) else cell for key, cell in row.items()}
            )


def read_csv(path: Path) -> list[dict[str, str]]:
    """Return the rows that `write_csv` wrote, all cells as texts."""
    with present(path).open(encoding="utf-8", newline="") as file:
        return [{key: plain_text(cell) for key, cell in row.items()} for row in csv.DictReader(file, restval="")]


def spreadsheet_cell(text: str) -> str:
    """Return a text as a cell that a spreadsheet shows and does not compute, such as a class called `=1+1`.

    An apostrophe stands before what would be a formula, and before what looks so but for apostrophes of its own: so
    `read_csv` has the text back, whatever it was. Numbers are to be written as numbers.
    """
    return f"'{text}" if _FORMULA.match(text) else text


def plain_text(cell: str) -> str:
    """Return the text that `spreadsheet_cell` made a cell of."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def save_tensors(path: Path, tensors: Mapping[str, torch.Tensor], header: Mapping[str, object]) -> None:
    """Write tensors and a JSON header that says how to rebuild what they belong to."""
    from safetensors.torch import save

    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    content = save(contiguous, metadata={"ltrec": json.dumps(header, sort_keys=True)})
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def load_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Return the tensors, memory-mapped, and the header that `save_tensors` wrote.

    Raises:
        UserError: the file is missing, truncated, or was not written by ltrec.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(present(path), framework="pt") as file:
            metadata = file.metadata() or {}
            if "ltrec" not in metadata:
                raise UserError("is a safetensors file, but not one of ltrec's: its header is missing", where=str(path))
            return {name: file.get_tensor(name) for name in list(file.keys())}, json.loads(metadata["ltrec"])
    except (SafetensorError, json.JSONDecodeError) as error:
        remedy = "delete it and run its stage again"
        raise UserError(f"damaged or not a safetensors file ({error}); {remedy}", where=str(path)) from None


def present(path: Path) -> Path:
    """Return the path itself, if there is a regular file, or a link to one.

    Every file of a user is opened behind it: reading a named pipe or a device may wait for ever, deaf to Ctrl-C.

    Raises:
        UserError: there is none; the message names the stage that writes it, or says what is there.
    """
    if path.is_file():
        return path
    if kind := irregular(path):
        raise UserError(f"is {kind}, not a file", where=str(path))
    writer = made_by(path)
    raise UserError("no such file" + (f"; {writer} writes it" if writer else ""), where=str(path))


def irregular(path: Path) -> str | None:
    """Return what lies at a path where it is no regular file, such as `a named pipe`; None for a file or nothing."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return None
    return next((kind for kind, holds in _IRREGULAR.items() if holds(mode)), None)


def made_by(path: Path) -> str | None:
    """Return the commands that write an artifact; None for any other file."""
    if len(path.parts) < 3 or path.parts[0] != "artifacts":
        return None
    stage, variant = path.parts[1:3]
    return f"`ltrec {stage}{f' {variant}' if stage == 'rebalance' else ''}` or `dvc repro`"


def require_made_from(path: Path, header: Mapping[str, Any], **inputs: str | Path) -> None:
    """Refuse an artifact that was made from other inputs than those it is to be used with.

    DVC never mixes them; stages that are run by hand may.

    Args:
        path: The artifact.
        header: Its header, with the digests of what it was made from; None stands for what was not known then.
        inputs: Files, or the digests of files, by their names in the header.

    Raises:
        UserError: the header has another digest, or none.
    """
    for name, source in inputs.items():
        wanted = digest(source) if isinstance(source, Path) else source
        if header.get(name, "") not in (wanted, None):
            raise UserError(
                f"belongs to another {_INPUTS[name]} than is there now; {made_by(path)} makes it anew", where=str(path)
            )


def digest(*parts: object) -> str:
    """Return SHA-256 over the contents of files (`Path`) and JSON-able values, in order."""
    sha256 = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            with present(part).open("rb") as file:
                sha256.update(hashlib.file_digest(file, "sha256").digest())
        else:
            sha256.update(json.dumps(part, sort_keys=True).encode())
        sha256.update(b"\0")
    return sha256.hexdigest()
