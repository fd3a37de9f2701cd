"""Resume state: whole or not at all, damaged means a fresh start, gone when its result is safe."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from ltrec.errors import UserError
from ltrec.training.resume import ResumeFolder, sweep

KEY = "0123456789abcdef" * 4
STATE = {"network": {"w": torch.arange(4.0)}, "sampler": {"drawn": [1, 2]}, "history": [{"epoch": 1, "loss": 0.5}]}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    (tmp_path / "params.yaml").touch()
    return tmp_path


def saved(state: dict[str, Any] = STATE) -> ResumeFolder:
    folder = ResumeFolder("represent", KEY)
    folder.save(state)
    return folder


def test_what_was_saved_comes_back() -> None:
    saved()
    loaded = ResumeFolder("represent", KEY).load()
    assert loaded is not None
    assert torch.equal(loaded["network"].pop("w"), torch.arange(4.0))
    assert loaded == {"network": {}, "sampler": {"drawn": [1, 2]}, "history": [{"epoch": 1, "loss": 0.5}]}


def test_it_lies_in_the_project_and_outside_the_outputs(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    below = home / "sub"
    below.mkdir()
    monkeypatch.chdir(below)
    assert saved().folder == home / ".ltrec" / "resume" / "represent" / KEY[:16]


def test_nothing_saved_is_nothing() -> None:
    assert ResumeFolder("represent", KEY).load() is None
    saved()
    assert ResumeFolder("represent", "f" * 64).load() is None
    assert ResumeFolder("other", KEY).load() is None


def test_the_last_state_counts() -> None:
    saved()
    folder = saved({"history": [1, 2]})
    assert folder.load() == {"history": [1, 2]}
    assert [path.name for path in folder.folder.iterdir()] == ["checkpoint.pt"]


@pytest.mark.parametrize("kept", [0, 1, 100, -1])
def test_a_truncated_checkpoint_means_a_fresh_start(capsys: pytest.CaptureFixture[str], kept: int) -> None:
    folder = saved()
    folder._file.write_bytes(folder._file.read_bytes()[:kept])
    assert folder.load() is None
    assert "damaged checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize(
    "content", [b"\x80\x02junk", b"not a checkpoint", b"PK\x03\x04" + bytes(500), b"\x80\x02N.", b"\x80\x02(K"]
)
def test_what_is_no_checkpoint_means_a_fresh_start(capsys: pytest.CaptureFixture[str], content: bytes) -> None:
    folder = saved()
    folder._file.write_bytes(content)
    assert folder.load() is None
    warning = capsys.readouterr().err
    assert warning.count("\n") == 1, "one line"
    assert "damaged checkpoint" in warning
    folder.save(STATE)
    assert folder.load() is not None


def test_a_checkpoint_runs_no_code(capsys: pytest.CaptureFixture[str]) -> None:
    folder = saved()
    torch.save({"version": "1", "call": print}, folder._file)
    assert folder.load() is None
    assert "damaged checkpoint" in capsys.readouterr().err


def test_a_failed_save_keeps_the_last_state(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = saved()

    whole = Path.write_bytes

    def full_disk(self: Path, content: bytes) -> int:
        whole(self, content[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(OSError, match="No space"):
        folder.save({"history": []})
    loaded = folder.load()
    assert loaded is not None
    assert loaded["history"] == STATE["history"]
    assert len(list(folder.folder.iterdir())) == 1


def test_discarded_is_gone() -> None:
    folder = saved()
    folder.discard()
    assert not folder.folder.exists()
    assert folder.load() is None
    folder.discard()


def test_only_one_process_trains_a_thing() -> None:
    with ResumeFolder("represent", KEY):
        with pytest.raises(UserError, match="held by process"), ResumeFolder("represent", KEY, patience=0):
            pass
        with ResumeFolder("represent", "f" * 64):
            pass
    with ResumeFolder("represent", KEY) as again:
        again.save(STATE)
        again.discard()


def left(home: Path) -> set[str]:
    """Keys (by their first letter) and lock files that lie there."""
    return {path.name[:1] + path.suffix for path in (home / ".ltrec/resume/represent").iterdir()}


def test_a_sweep_takes_what_is_taken_over_or_abandoned_and_nothing_else(home: Path) -> None:
    folders = {letter: ResumeFolder("represent", letter * 64) for letter in "abcdef"}
    for folder in folders.values():
        folder.save(STATE)
    folders["a"].finish("result a")
    folders["b"].finish("result b")
    for letter in "de":
        os.utime(folders[letter]._file, (0, time.time() - 31 * 24 * 3600))
    os.utime(folders["c"]._file, (0, time.time() - 29 * 24 * 3600))
    (home / ".ltrec/resume/represent/9999999999999999.lock").touch()  # killed before its first epoch
    with folders["e"], ResumeFolder("represent", "f" * 64):
        sweep("represent")
        # b finished and waits for its result to be taken; c may be resumed; e is held although old.
        assert left(home) == {"a", "b", "c", "e", "e.lock", "f", "f.lock"}
        sweep("represent", taken="result a")
        assert left(home) == {"b", "c", "e", "e.lock", "f", "f.lock"}
    folders["f"].finish("result f")
    with folders["f"]:
        sweep("represent", taken="result f")
        assert "f" in left(home)
    sweep("represent", taken="result f")
    assert left(home) == {"b", "c"}


def test_a_sweep_of_nothing_makes_nothing(home: Path) -> None:
    sweep("represent", taken="any")
    assert not (home / ".ltrec").exists()


def test_lock_files_do_not_pile_up(home: Path) -> None:
    for letter in "ab":
        with ResumeFolder("represent", letter * 64) as folder:
            folder.save(STATE)
    assert left(home) == {"a", "b"}


def test_the_result_is_known_once_finished() -> None:
    folder = saved()
    assert folder.result() is None
    folder.finish("digest")
    assert ResumeFolder("represent", KEY).result() == "digest"
    assert folder.load() is not None
