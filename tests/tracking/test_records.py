from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ltrec.errors import UserError
from ltrec.tracking.records import About, Record

if TYPE_CHECKING:
    from collections.abc import Iterator

ABOUT = About("represent", None, nested=True, pipeline="pipeline", experiment="ltrec", model="ltrec")


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Record]:
    record = Record.start(tmp_path / "tracking/state", ABOUT)
    yield record
    record.release()


def test_params_are_flat_text_with_names_that_mlflow_takes(record: Record) -> None:
    record.params({"a": {"b": {"c": 1}, "d": [1, 0.5]}, "e": None, "f": True, "g@h": "text", "empty": {}})
    assert record.read().params == {
        "a.b.c": "1",
        "a.d": "[1, 0.5]",
        "e": "null",
        "f": "true",
        "g_h": "text",
        "empty": "{}",
    }


def test_a_long_param_is_cut_to_500_characters(record: Record) -> None:
    record.params({"a": "x" * 501, "b": "x" * 500})
    assert record.read().params == {"a": "x" * 499 + "…", "b": "x" * 500}


def test_of_a_curve_the_first_value_of_a_step_counts_and_of_a_figure_the_last(record: Record) -> None:
    for value in (1.0, 2.0):
        record.metrics({"loss": value}, step=3)
        record.metrics({"all": value, "few": None})
    content = record.read()
    assert {key: value for key, (value, _) in content.metrics.items()} == {("loss", 3): 1.0, ("all", None): 2.0}


def test_history_takes_rows_of_numbers_or_of_text(record: Record) -> None:
    record.history([{"epoch": 1, "loss": 0.5}, {"epoch": "2", "loss": "0.25"}], "represent")
    assert {key: value for key, (value, _) in record.read().metrics.items()} == {
        ("represent/loss", 1): 0.5,
        ("represent/loss", 2): 0.25,
    }


def test_what_is_no_number_survives(record: Record) -> None:
    record.metrics({"a": float("nan"), "b": float("-inf")})
    metrics = record.read().metrics
    assert str(metrics["a", None][0]) == "nan"
    assert metrics["b", None][0] == float("-inf")


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_torn_last_line_is_passed_over(record: Record, cut: int) -> None:
    record.tags({"whole": "yes"})
    record.tags({"torn": "x" * 50})
    lines = record.folder / "lines.jsonl"
    with lines.open("r+b") as file:
        file.truncate(lines.stat().st_size - cut)
    tags = record.read().tags
    assert tags.get("whole") == "yes"
    # Without its newline alone the line is whole.
    assert ("torn" in tags) == (cut == 1)


def test_lines_that_are_json_but_not_ours_are_passed_over(record: Record) -> None:
    with (record.folder / "lines.jsonl").open("a", encoding="utf-8") as file:
        file.write('[]\n{"kind": "tags"}\n{"kind": "unknown", "what": 1, "time": 2}\n')
    record.tags({"a": "b"})
    assert record.read().tags == {"a": "b"}


def test_a_kept_file_is_a_copy_with_its_folder(record: Record, tmp_path: Path) -> None:
    (tmp_path / "plots/deep").mkdir(parents=True)
    (tmp_path / "plots/deep/a.txt").write_text("first", encoding="utf-8")
    (tmp_path / "b.txt").write_text("first", encoding="utf-8")
    record.file(tmp_path / "plots", "evaluate")
    record.file(tmp_path / "b.txt")
    (tmp_path / "b.txt").write_text("second", encoding="utf-8")
    content = record.read()
    assert content.files == {"evaluate/plots/deep/a.txt": "evaluate/plots/deep", "b.txt": ""}
    assert record.copy_of("b.txt").read_text(encoding="utf-8") == "first"


def test_the_params_of_export_are_tags_because_it_may_run_again_with_others(tmp_path: Path) -> None:
    record = Record.start(tmp_path / "tracking/state", replace(ABOUT, stage="export"))
    record.params({"export": {"precision": "fp32", "opset": 20}})
    record.params({"export": {"precision": "fp16", "opset": 20}})
    content = record.read()
    record.release()
    assert content.params == {}
    assert content.tags == {"export.precision": "fp16", "export.opset": "20"}


def test_times_of_start_and_end(record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", iter([1.0, 2.0, 3.0, 4.0]).__next__)
    record.status("RUNNING")
    record.status("KILLED")
    record.status("RUNNING")
    assert (record.read().started, record.read().ended) == (1000, None)
    record.status("FINISHED")
    assert (record.read().started, record.read().ended) == (1000, 4000)


def test_a_record_is_written_until_it_is_released(record: Record) -> None:
    (seen,) = Record.pending(record.folder.parents[1])
    assert seen.is_written()
    record.release()
    assert not seen.is_written()


def test_what_a_run_is_told_can_always_be_written(record: Record) -> None:
    """Whether another process writes too, or a sender that waits for the network holds what it sends."""
    record.metrics({"all": 1.0})
    with record.sending(0):
        later = Record.start(record.folder.parent, ABOUT)
        later.metrics({"all": 2.0})
        record.metrics({"few": 0.5})
        later.release()
    assert {key: value for key, (value, _) in later.read().metrics.items()} == {("all", None): 2.0}
    assert len(record.read().metrics) == 2
    assert [each.folder for each in Record.pending(record.folder.parents[1])] == [record.folder, later.folder]


def test_one_process_at_a_time_sends_what_belongs_to_a_run(record: Record) -> None:
    later = Record.start(record.folder.parent, ABOUT)
    of_another = Record.start(record.folder.parent, replace(ABOUT, variant="crt"))
    with record.sending(0) as is_there:
        assert is_there
        with pytest.raises(UserError, match=f"held by process {os.getpid()}"), later.sending(0):
            pass
        with of_another.sending(0) as another_is_there:
            assert another_is_there
    for each in (later, of_another):
        each.release()


def test_a_removed_record_leaves_nothing_behind(record: Record, tmp_path: Path) -> None:
    tracking = tmp_path / "tracking"
    (late,) = Record.pending(tracking)
    record.release()
    with record.sending(0):
        record.remove()
    assert list(tracking.iterdir()) == []
    with late.sending(0) as is_there:
        assert not is_there
    assert list(tracking.iterdir()) == []


def test_a_record_that_cannot_begin_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ltrec.artifacts.write_json", full)
    with pytest.raises(OSError, match="No space left"):
        Record.start(tmp_path / "tracking/state", ABOUT)
    assert list((tmp_path / "tracking").iterdir()) == []


def test_pending_oldest_first_and_damaged_ones_left_out(tmp_path: Path) -> None:
    for age, name in ((3, "b"), (1, "c"), (2, "a")):
        record = Record.start(tmp_path / "state", replace(ABOUT, stage=name))
        record.release()
        os.utime(record.folder / "about.json", (1000 - age, 1000 - age))
    (tmp_path / "state/damaged").mkdir()
    (tmp_path / "state/damaged/about.json").write_text("{", encoding="utf-8")
    assert [record.about.stage for record in Record.pending(tmp_path)] == ["b", "a", "c"]


def test_a_disk_that_takes_nothing_is_said_once(
    record: Record, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "open", full)
    record.tags({"a": "b"})
    record.metrics({"a": 1.0})
    said = capsys.readouterr().err
    assert said.count("warning") == 1
    assert "No space left on device" in said


def test_each_line_is_json(record: Record) -> None:
    record.params({"path": Path("a/b")})
    lines = (record.folder / "lines.jsonl").read_text(encoding="utf-8").split("\n")
    assert [json.loads(line)["what"] for line in lines if line] == [{"path": '"a/b"'}]
