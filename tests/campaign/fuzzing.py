"""What the tests over thousands of hostile files share: how many there are, and what each of them may end in."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, seed, settings

from ltrec.errors import UserError
from tests.campaign.conftest import SEED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.campaign.conftest import Tally

EXAMPLES = int(os.environ.get("LTREC_CAMPAIGN_EXAMPLES", "1250"))
SECONDS = 10.0  # of a processor: the most that one input may take


class Current:
    """The test that runs."""

    tally: Tally


@pytest.fixture(autouse=True)
def counted(tally: Tally) -> None:
    """Each input of this test is counted in its tally."""
    tally.seeds.append(str(SEED))
    Current.tally = tally


def campaign(share: float = 1) -> Callable[[Any], Any]:
    """Return the decorators of a test over many inputs, a share of `EXAMPLES`.

    Hypothesis makes those that fail smaller. Readers that take tens of milliseconds get less than those that take one.
    """
    options = settings(
        max_examples=max(round(share * EXAMPLES), 5),
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.explicit, Phase.generate, Phase.shrink),
    )
    return lambda test: seed(SEED)(options(test))


@contextlib.contextmanager
def one_line_or_done() -> Iterator[None]:
    """Count an input, which may end in a result or in a `UserError` of printable length; anything else is a failure."""
    began = time.process_time()
    refusal = None
    try:
        yield
    except UserError as error:
        refusal = error
    Current.tally.add("refused" if refusal else "done")
    if refusal is not None:
        assert refusal.lines
        assert all(len(line) < 5000 for line in refusal.lines)
        assert "For further information" not in str(refusal)
    assert time.process_time() - began < SECONDS


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile")
