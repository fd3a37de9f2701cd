"""What a figure was measured on, and how the benchmarks time a command."""

from __future__ import annotations

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
    from collections.abc import Mapping, Sequence

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
        "versions": {package: _version(package) for package in _PACKAGES},
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


def _version(package: str) -> str | None:
    """None where it is not installed: not every benchmark needs every package."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()  # fmt: skip
