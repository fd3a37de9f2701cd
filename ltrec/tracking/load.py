"""Samples of the machine's load by MLflow's own collectors, written to a record like any other metric."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ltrec.tracking.records import Record


class Load:
    """Processor, memory, disk, network and, where there is one, GPU."""

    def __init__(self, record: Record) -> None:
        from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
        from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
        from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

        self._record = record
        monitors: list[Any] = [CPUMonitor, DiskMonitor, NetworkMonitor]  # MLflow leaves them without types
        self._monitors = [*(monitor() for monitor in monitors), *_gpu_monitors()]
        # A resumed stage goes on after the samples of the first.
        self._step = 1 + max((step for name, step in record.read().metrics if name.startswith("system/")), default=-1)
        self._last = time.monotonic()

    def sample(self, at_least_every: float) -> None:
        """Take a sample if the last one is so many seconds old."""
        now = time.monotonic()
        if now - self._last < at_least_every:
            return
        self._last = now
        values: dict[str, float] = {}
        for monitor in self._monitors:
            monitor.collect_metrics()
            values |= monitor.aggregate_metrics()
            monitor.clear_metrics()
        self._record.metrics({f"system/{name}": float(value) for name, value in values.items()}, step=self._step)
        self._step += 1


def _gpu_monitors() -> list[Any]:
    try:
        from mlflow.system_metrics.metrics import gpu_monitor

        monitor: Any = gpu_monitor.GPUMonitor
        return [monitor()]
    except Exception:  # noqa: BLE001 - no GPU, no driver or no library for it: nothing to sample
        return []
