"""What a figure was measured on, and how the benchmarks measure a process."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from ltrec.process import cores

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ROOT = Path(__file__).resolve().parents[1]
_PACKAGES = (
    "torch",
    "torchvision",
    "mlflow",
    "dvc",
    "onnx",
    "onnxruntime",
    "numpy",
    "pillow",
    "scikit-learn",
    "simplejpeg",
)


def machine() -> dict[str, Any]:
    """Processor, cores and memory, the load at this moment, versions, and the commit."""
    return {
        "cpu": _cpu(),
        "cores": cores(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "load": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": dict(_versions()),
        "commit": _git("rev-parse", "HEAD"),
        "dirty": bool(_git("status", "--porcelain", "--untracked-files=no")),
    }


@dataclass(frozen=True)
class Process:
    """What a process took from its start to its end, interpreter and imports included, and what it said."""

    seconds: float
    processor_seconds: float
    """Of all cores, with the processes that it waited for."""
    peak_mb: int
    """Most memory that it, or one of the processes it waited for, held at a time."""
    said: str


def run(command: Sequence[str | Path], folder: Path, env: Mapping[str, str] | None = None, *, code: int = 0) -> Process:
    """Run a command that must end with `code`.

    Raises:
        RuntimeError: it ended otherwise.
    """
    start = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )  # fmt: skip
    assert process.stdout is not None
    said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)  # rather than wait(), which keeps the usage to itself
    taken = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != code:
        raise RuntimeError(f"{command} ended with {process.returncode}, not {code}:\n{said}")
    return Process(taken, usage.ru_utime + usage.ru_stime, round(usage.ru_maxrss / 1024), said)


def python(code: str, *arguments: str, folder: Path = ROOT, env: Mapping[str, str] | None = None) -> Process:
    """Run Python code in a process of its own; see `run`."""
    return run([sys.executable, "-c", code, *arguments], folder, env)


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and range of a figure's repeats."""
    return {"median": round(median(values), 4), "min": round(min(values), 4), "max": round(max(values), 4)}


def seconds(
    command: Sequence[str | Path], folder: Path, env: Mapping[str, str], *, code: int = 0, times: int = 1
) -> dict[str, Any]:
    """Wall time of a command that must end with `code`: the spread of some runs, and each of them."""
    runs = [round(run(command, folder, env, code=code).seconds, 3) for _ in range(times)]
    return spread(runs) | {"runs": runs}


def _versions() -> Iterator[tuple[str, str]]:
    """Of what is installed: a machine that is lent for its GPU may have neither DVC nor MLflow."""
    for package in _PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            yield package, version(package)


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _git(*arguments: str) -> str:
    """What Git says; nothing where the project was copied without its history."""
    return subprocess.run(
        ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()  # fmt: skip
