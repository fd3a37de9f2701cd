"""What a figure was measured on, and how the benchmarks time a command."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from ltrec.process import cores

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ROOT = Path(__file__).resolve().parents[1]
_PACKAGES = ("torch", "torchvision", "mlflow", "dvc", "onnx", "onnxruntime", "numpy", "scikit-learn")


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


def seconds(
    command: Sequence[str | Path], folder: Path, env: Mapping[str, str], *, code: int = 0, times: int = 1
) -> dict[str, Any]:
    """Wall time of a command that must end with `code`: the median of some runs, and each of them."""
    runs = []
    for _ in range(times):
        start = time.perf_counter()
        done = subprocess.run(
            command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        runs.append(round(time.perf_counter() - start, 3))
        if done.returncode != code:
            raise RuntimeError(f"{command} ended with {done.returncode}, not {code}:\n{done.stdout}")
    return {"median": round(median(runs), 3), "runs": runs}


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
