"""Profiling a stage: a table of where its time goes, and PyTorch's trace of the first steps."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING, TypeVar

from ltrec import artifacts, console

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    import torch

Item = TypeVar("Item")

# A trace of more steps could not be opened.
_TRACED_STEPS = 20


class Profile:
    """The seconds that each part of a stage takes, and a trace of its first steps."""

    def __init__(self, device: torch.device, trace: Path) -> None:
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it would speak of GPUs that are not there
        from torch.profiler import ProfilerActivity, profile

        self.seconds: dict[str, float] = {}
        self._device = device
        self._trace = trace
        self._steps = 0
        activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device.type == "cuda" else [])
        self._profiler: profile | None = profile(activities=activities)
        self._profiler.start()

    @contextlib.contextmanager
    def span(self, name: str) -> Iterator[None]:
        """Time what runs inside as a part of this name; the device's queue is emptied before and after."""
        from torch.profiler import record_function

        self._settle()
        start = time.perf_counter()
        try:
            with record_function(name):
                yield
        finally:
            self._settle()
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def step(self) -> None:
        """Note that a step is over; after some steps the trace is written."""
        self._steps += 1
        if self._steps == _TRACED_STEPS:
            self.finish()

    def finish(self) -> None:
        """Write the trace, unless that is done already."""
        if self._profiler is not None:
            with self.span("the trace"):
                self._profiler.stop()
                with artifacts.replacing(self._trace) as temporary:
                    self._profiler.export_chrome_trace(str(temporary))
            self._profiler = None

    def _settle(self) -> None:
        import torch

        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


_active: Profile | None = None


def span(name: str) -> AbstractContextManager[None]:
    """Return a context that is timed as a part of the stage's work, if the stage is profiled."""
    return contextlib.nullcontext() if _active is None else _active.span(name)


def waiting(items: Iterable[Item], name: str) -> Iterator[Item]:
    """Yield the items; the waiting for each is timed as a part of the stage's work."""
    iterator = iter(items)
    while True:
        with span(name):
            try:
                item = next(iterator)
            except StopIteration:
                return
        yield item


def step() -> None:
    """Note that a step of the stage's loop is over."""
    if _active is not None:
        _active.step()


@contextlib.contextmanager
def recording(stage: str, device: torch.device, *, wanted: bool) -> Iterator[None]:
    """Profile the stage that runs inside, if that is wanted.

    The table of its parts is shown, and written beside the trace in the project's state folder.
    """
    global _active  # noqa: PLW0603 - one process, one stage
    if not wanted:
        yield
        return
    from ltrec import project

    folder = project.state_dir() / "profile" / stage
    folder.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    _active = profile = Profile(device, folder / "trace.json")
    try:
        yield
    finally:
        _active = None
        profile.finish()
        table = _table(profile.seconds, time.perf_counter() - start)
        artifacts.write_text(folder / "table.txt", table)
        console.say(f"{table}{stage}: trace of the first steps → {folder / 'trace.json'} (chrome://tracing, Perfetto)")


def _table(seconds: dict[str, float], whole: float) -> str:
    """Return a table of the parts, the longest first, and of the time that is in none."""
    parts = [*sorted(seconds.items(), key=lambda part: -part[1]), ("the rest", whole - sum(seconds.values()))]
    lines = [f"{'part':<16}{'seconds':>10}{'share':>8}"]
    lines += [f"{name:<16}{spent:>10.2f}{spent / whole:>8.1%}" for name, spent in parts]
    return "\n".join(lines) + "\n"
