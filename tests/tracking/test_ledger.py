from __future__ import annotations

from ltrec.tracking.ledger import Ledger, Point
from ltrec.tracking.records import Content


def test_sends_only_steps_that_mlflow_lacks() -> None:
    ledger = Ledger({"loss": 0.5}, {"loss": [(1, 10), (2, 20)]}.__getitem__)
    content = Content(curves={("loss", 2): (0.5, 99), ("loss", 3): (0.4, 30), ("new", 1): (1.0, 30)})
    assert list(ledger.lacks(content)) == [Point("loss", 0.4, 30, 3), Point("new", 1.0, 30, 1)]


def test_sends_a_figure_if_it_is_new_or_another() -> None:
    nan = float("nan")
    ledger = Ledger({"same": 1.0, "other": 1.0, "nan": nan}, {}.__getitem__)
    content = Content(figures={"same": (1.0, 9), "other": (2.0, 9), "nan": (nan, 9), "new": (3.0, 9)})
    assert list(ledger.lacks(content)) == [Point("other", 2.0, 9, 0), Point("new", 3.0, 9, 0)]


def test_samples_count_on_from_those_that_mlflow_holds() -> None:
    ledger = Ledger({"system/cpu": 5.0}, {"system/cpu": [(0, 10), (1, 20)]}.__getitem__)
    content = Content(samples={20: {"system/cpu": 5.0}, 40: {"system/cpu": 7.0}, 30: {"system/cpu": 6.0}})
    assert list(ledger.lacks(content)) == [Point("system/cpu", 6.0, 30, 2), Point("system/cpu", 7.0, 40, 3)]


def test_nothing_is_lacking_once_it_was_added() -> None:
    ledger = Ledger({}, {}.__getitem__)
    content = Content(curves={("loss", 1): (0.5, 10)}, figures={"all": (0.9, 10)}, samples={10: {"system/cpu": 5.0}})
    points = list(ledger.lacks(content))
    assert len(points) == 3
    ledger.add(points)
    assert list(ledger.lacks(content)) == []
