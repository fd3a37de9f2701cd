"""One stage as `ltrec` runs it, with each moment put down to one cause; prints JSON.

benchmarks/startup.py runs it: `python benchmarks/stage_parts.py SECONDS_SINCE_1970 STAGE [ARGUMENT ...]`, where the
first is when the process was started. A module's time is its package's; "other imports" are those that no package
named here imported. What happens in MLflow's own process counts where the stage waits for it.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.machinery
import json
import sys
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

_PACKAGES = {"torch", "torchvision", "onnx", "onnxruntime", "scipy", "vl_convert", "ltrec"}
_LOADERS: tuple[Any, ...] = (importlib.machinery.SourceFileLoader, importlib.machinery.ExtensionFileLoader)


class Clock:
    """Seconds by cause; a cause within another is taken out of it."""

    def __init__(self) -> None:
        self.taken: defaultdict[str, float] = defaultdict(float)
        self._open: list[str] = []
        self._since = 0.0

    def cause(self) -> str | None:
        """What time is put down to at this moment."""
        return self._open[-1] if self._open else None

    @contextlib.contextmanager
    def during(self, cause: str) -> Iterator[None]:
        self._charge()
        self._open.append(cause)
        try:
            yield
        finally:
            self._charge()
            self._open.pop()

    def _charge(self) -> None:
        now = time.perf_counter()
        if self._open:
            self.taken[self._open[-1]] += now - self._since
        self._since = now


def main() -> None:
    interpreter = time.time() - float(sys.argv.pop(1))
    clock = Clock()
    for loader in _LOADERS:
        loader.exec_module = _timed_import(clock, loader.exec_module)
    try:
        with clock.during("work"):
            _run(clock)
    except SystemExit as ended:
        if ended.code:
            raise
    print(json.dumps({"interpreter": interpreter} | clock.taken))


def _run(clock: Clock) -> None:
    from ltrec.cli import main as command_line
    from ltrec.config import params
    from ltrec.stages import recording

    vars(params)["load"] = _timed(clock, "params", params.load)
    stage_run = recording.stage_run

    @contextlib.contextmanager
    def timed_run(*given: Any, **named: Any) -> Iterator[Any]:
        run = stage_run(*given, **named)
        with clock.during("tracking starts"):
            record = run.__enter__()
        yield record
        with clock.during("tracking ends"):
            run.__exit__(None, None, None)

    vars(recording)["stage_run"] = timed_run
    command_line()


def _timed(clock: Clock, cause: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def timed(*given: Any, **named: Any) -> Any:
        with clock.during(cause):
            return function(*given, **named)

    return timed


def _timed_import(clock: Clock, load: Callable[[Any, ModuleType], None]) -> Callable[[Any, ModuleType], None]:
    @functools.wraps(load)
    def timed(loader: Any, module: ModuleType) -> None:
        package = module.__name__.partition(".")[0]
        above = clock.cause()
        if package in _PACKAGES:
            cause = f"import {package}"
        elif above and above.startswith("import ") and above != "import ltrec":
            cause = above
        else:
            cause = "other imports"
        with clock.during(cause):
            load(loader, module)

    return timed


if __name__ == "__main__":
    main()
