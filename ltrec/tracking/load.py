"""Samples of the machine's load by MLflow's own collectors."""

from __future__ import annotations

import contextlib
from typing import Any


class Load:
    """Processor, memory, disk, network and, where there is one, GPU."""

    def __init__(self) -> None:
        self._monitors = _monitors()

    def now(self) -> dict[str, float]:
        """Values by MLflow's names, such as `cpu_utilization_percentage`."""
        values: dict[str, float] = {}
        for monitor in self._monitors:
            monitor.collect_metrics()
            values |= monitor.aggregate_metrics()
            monitor.clear_metrics()
        return values


def _monitors() -> list[Any]:
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

    kinds: list[Any] = [CPUMonitor, DiskMonitor, NetworkMonitor, GPUMonitor]
    monitors = []
    for kind in kinds:
        with contextlib.suppress(Exception):  # no GPU, no driver or no library for it: nothing to sample
            monitors.append(kind())
    return monitors
