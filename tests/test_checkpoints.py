"""Resume state: whole or not at all, damaged means a fresh start, finished means gone."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import pytest
import torch

from ltrec import checkpoints, project
from ltrec.checkpoints import ResumeFolder
from ltrec.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

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

    def full_disk(_state: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="No space"):
        folder.save({"history": []})
    loaded = folder.load()
    assert loaded is not None
    assert loaded["history"] == STATE["history"]
    assert len(list(folder.folder.iterdir())) == 1


def test_another_versions_state_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    saved()
    monkeypatch.setattr(checkpoints, "__version__", "999.0")
    assert ResumeFolder("represent", KEY).load() is not None
    assert "another version" in capsys.readouterr().err


def test_discarded_is_gone() -> None:
    folder = saved()
    folder.discard()
    assert not folder.folder.exists()
    assert folder.load() is None
    folder.discard()


def test_only_one_process_trains_a_thing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(project, "lock", functools.partial(project.lock, patience=0.0))
    with ResumeFolder("represent", KEY):
        with pytest.raises(UserError, match="held by process"), ResumeFolder("represent", KEY):
            pass
        with ResumeFolder("represent", "f" * 64):
            pass
    with ResumeFolder("represent", KEY) as again:
        again.save(STATE)
        again.discard()
