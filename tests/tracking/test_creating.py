from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from ltrec.tracking.creating import create_once, without_retries

if TYPE_CHECKING:
    from collections.abc import Callable


class Shelf:
    """Holds what was created; a call may fail before or after that."""

    def __init__(self, *held: str) -> None:
        self.held = list(held)
        self.calls = 0

    def find(self) -> list[str]:
        return list(self.held)

    def creating(self, *, executed: bool = True, answered: bool = True, beside: str | None = None) -> Callable[[], str]:
        def create() -> str:
            self.calls += 1
            self.held += [beside] if beside else []
            self.held += ["new"] if executed else []
            if not answered:
                raise ConnectionError
            return "new"

        return create


def test_what_is_there_is_not_created() -> None:
    shelf = Shelf("old")
    assert create_once(shelf.find, shelf.creating()) == ["old"]
    assert shelf.calls == 0


@pytest.mark.parametrize("answered", [True, False])
def test_a_call_that_was_executed_counts_whether_it_was_answered_or_not(answered: bool) -> None:
    shelf = Shelf()
    assert create_once(shelf.find, shelf.creating(answered=answered)) == ["new"]
    assert shelf.calls == 1


def test_a_call_that_was_not_executed_raises_what_it_raised() -> None:
    shelf = Shelf()
    with pytest.raises(ConnectionError):
        create_once(shelf.find, shelf.creating(executed=False, answered=False))
    assert shelf.calls == 1


def test_what_somebody_else_created_meanwhile_is_seen() -> None:
    shelf = Shelf()
    assert create_once(shelf.find, shelf.creating(beside="theirs")) == ["theirs", "new"]
    shelf = Shelf()  # as with names that may be there once
    assert create_once(shelf.find, shelf.creating(executed=False, answered=False, beside="theirs")) == ["theirs"]


def test_a_store_that_shows_it_later_is_believed() -> None:
    assert create_once(list[str], lambda: "new") == ["new"]


@pytest.mark.parametrize("before", ["3", None])
def test_retries_are_off_while_it_creates_and_then_as_before(
    before: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    if before is None:
        monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES")
    seen = create_once(list[str], lambda: os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"])
    assert seen == ["0"]
    assert os.environ.get("MLFLOW_HTTP_REQUEST_MAX_RETRIES") == before
    with pytest.raises(KeyError), without_retries():
        raise KeyError
    assert os.environ.get("MLFLOW_HTTP_REQUEST_MAX_RETRIES") == before
