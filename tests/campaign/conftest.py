"""What the campaigns count, and the table of it at the end of `make campaign`."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter

SEED = int(os.environ.get("LTREC_CAMPAIGN_SEED", "0"))
"""The seed that all random numbers of the campaigns come from."""

GOOD = ("done", "same")
FAULTS = ("different", "stuck", "lost", "doubled", "tracebacks")


@dataclass(frozen=True)
class Tally:
    """What one test of a campaign did and found.

    `done` counts what ran to its end and `same` what was then as if nothing had happened; of `FAULTS` all are to be
    zero. A campaign may count more, such as its kills.
    """

    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys((*GOOD, *FAULTS), 0))
    seeds: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    """A line for each fault: what was seen, and where."""

    def add(self, what: str, number: int = 1) -> None:
        self.counts[what] = self.counts.get(what, 0) + number

    def fault(self, what: str, line: str, number: int = 1) -> None:
        """Count a fault, with what there is to say about it."""
        self.add(what, number)
        self.faults.append(f"{what}: {line}")


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Tally:
    """The counts of this test, which the table at the end adds up for each campaign."""
    tally = Tally()
    campaign = request.path.stem.removeprefix("test_").replace("_", " ")
    # Plain lists and dictionaries: under xdist they travel to the process that writes the table.
    request.node.user_properties.append(("campaign", [campaign, tally.counts, tally.seeds]))
    return tally


@pytest.fixture(scope="session")
def campaign_seed() -> int:
    """The seed that all random numbers of the campaigns come from."""
    return SEED


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    """Print a line of counts for each campaign, and the seeds to repeat it with."""
    added: dict[str, dict[str, int]] = {}
    seeds: dict[str, list[str]] = {}
    for report in (each for reports in terminalreporter.stats.values() for each in reports):
        if getattr(report, "when", None) != "call":
            continue
        for campaign, counts, used in (value for name, value in report.user_properties if name == "campaign"):
            total = added.setdefault(campaign, {})
            for what, number in counts.items():
                total[what] = total.get(what, 0) + number
            seeds.setdefault(campaign, []).extend(used)
    if added:
        terminalreporter.section("campaigns")
    for campaign, total in sorted(added.items()):
        line = ", ".join(f"{what} {number}" for what, number in total.items())
        terminalreporter.write_line(f"{campaign}: {line}; seeds {' '.join(dict.fromkeys(seeds[campaign])) or '-'}")
