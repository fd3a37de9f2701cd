"""Where the time goes: parts add up to the whole, and the trace is one."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest
import torch

from ltrec import profiling

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    return tmp_path / ".ltrec/profile/represent"


def slow(count: int) -> Iterator[int]:
    for n in range(count):
        time.sleep(0.02)
        yield n


@pytest.mark.parametrize("steps", [3, 25])
def test_the_table_and_the_trace(steps: int, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with profiling.recording("represent", CPU, wanted=True):
        for _ in profiling.waiting(slow(steps), "loading"):
            with profiling.span("forward"):
                torch.ones(3) + 1
            profiling.step()
    rows = [line.split() for line in (folder / "table.txt").read_text().splitlines()]
    assert rows[0] == ["part", "seconds", "share"]
    parts = {" ".join(row[:-2]): float(row[-2]) for row in rows[1:]}
    assert set(parts) == {"loading", "forward", "the trace", "the rest"}
    assert parts["loading"] >= 0.02 * steps - 0.01
    assert sum(float(row[-1].rstrip("%")) for row in rows[1:]) == pytest.approx(100, abs=0.3)
    events = json.loads((folder / "trace.json").read_text())["traceEvents"]
    spans = [event["name"] for event in events if event.get("cat") == "user_annotation"]
    assert spans.count("forward") == min(steps, 20), "of the first steps"
    said = capsys.readouterr().err
    assert "loading" in said
    assert str(folder / "trace.json") in said


def test_nothing_is_timed_unless_somebody_asks(folder: Path) -> None:
    with profiling.recording("represent", CPU, wanted=False), profiling.span("forward"):
        profiling.step()
    assert list(profiling.waiting([1, 2], "loading")) == [1, 2]
    assert not folder.exists()


def test_a_stage_that_fails_still_says_where_its_time_went(folder: Path) -> None:
    with pytest.raises(KeyboardInterrupt), profiling.recording("represent", CPU, wanted=True):
        raise KeyboardInterrupt
    assert (folder / "table.txt").exists()
    assert profiling._active is None
