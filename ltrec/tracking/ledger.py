"""Which metrics of a record MLflow lacks. No MLflow here."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from ltrec.tracking.records import Content, Milliseconds


class Point(NamedTuple):
    """One value of a metric."""

    name: str
    value: float
    when: Milliseconds
    step: int


class Ledger:
    """The points of one run that MLflow holds.

    Args:
        latest: Each metric's newest value.
        history: Gives all (step, when) of a metric that is in `latest`; asked once a metric.
    """

    def __init__(self, latest: dict[str, float], history: Callable[[str], Iterable[tuple[int, Milliseconds]]]) -> None:
        self._latest = dict(latest)
        self._ask = history
        self._points: dict[str, dict[int, Milliseconds]] = {}

    def lacks(self, content: Content) -> Iterator[Point]:
        """What to send so that MLflow says what the record says."""
        for name, (value, when) in content.figures.items():
            if name not in self._latest or not _same(self._latest[name], value):
                yield Point(name, value, when, 0)
        for (name, step), (value, when) in content.curves.items():
            if step not in self._held(name):
                yield Point(name, value, when, step)
        for name in sorted({name for load in content.samples.values() for name in load}):
            # They count on from those that MLflow holds, so that a resumed run has one line.
            held = self._held(name)
            step, times = max(held, default=-1), set(held.values())
            for when, load in sorted(content.samples.items()):
                if name in load and when not in times:
                    step += 1
                    yield Point(name, load[name], when, step)

    def add(self, points: Iterable[Point]) -> None:
        """These are sent."""
        for point in points:
            self._held(point.name)[point.step] = point.when
            self._latest[point.name] = point.value

    def _held(self, name: str) -> dict[int, Milliseconds]:
        if name not in self._points:
            self._points[name] = dict(self._ask(name)) if name in self._latest else {}
        return self._points[name]


def _same(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))
