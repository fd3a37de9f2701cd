"""Creating on a server whose answers may be lost."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")

_RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"


def create_once(find: Callable[[], list[T]], create: Callable[[], T]) -> list[T]:
    """Return what is found; where that is nothing, create it and look again.

    A call whose answer is lost may have been executed, or will be yet, so that its failure tells nothing and to
    repeat it may double what it creates. The second look tells. It also shows what somebody else has created
    meanwhile: then several are returned, and the caller chooses as everybody does.

    Raises:
        Exception: what `create` raised, if nothing is there after it.
    """
    if found := find():
        return found
    created: list[T] = []
    trouble = None
    with without_retries():
        try:
            created.append(create())
        except Exception as error:  # noqa: BLE001 - the second look decides
            trouble = error
    found = find() or created
    if trouble and not found:
        raise trouble
    return found


@contextlib.contextmanager
def without_retries() -> Iterator[None]:
    """Keep MLflow's client from repeating a call by itself, as it does after a cut connection, a 429 or a 5xx."""
    before = os.environ.get(_RETRIES)
    os.environ[_RETRIES] = "0"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_RETRIES]
        else:
            os.environ[_RETRIES] = before
