"""Atomic files, tensors with a header, digests."""

from __future__ import annotations

import csv
import errno
import os
import re
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ltrec import artifacts
from ltrec.artifacts import Layout, replacing
from ltrec.errors import UserError


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def test_a_block_that_ends_replaces_the_file(tmp_path: Path) -> None:
    file = tmp_path / "new" / "a.txt"
    artifacts.write_text(file, "first")
    artifacts.write_text(file, "second\n")
    assert file.read_bytes() == b"second\n"
    assert names(file.parent) == {"a.txt"}


def test_an_exception_leaves_the_earlier_file_alone(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    artifacts.write_text(file, "good")

    def interrupted() -> None:
        with replacing(file) as temporary:
            temporary.write_text("half", encoding="utf-8")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert file.read_text(encoding="utf-8") == "good"
    assert names(tmp_path) == {"a.txt"}


def test_a_full_disk_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="full") as raised, artifacts.replacing(tmp_path / "a"):
        raise OSError(errno.ENOSPC, "full")
    assert raised.value.filename == str(tmp_path / "a")


@pytest.mark.parametrize(
    "name", ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "'=1", "''=1", " =1", "＝1", "ant", "'ant", "", "a=b", "'"]
)
def test_a_spreadsheet_shows_a_name_and_ltrec_has_it_back(name: str, tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    artifacts.write_csv(file, [{"class": name, "accuracy": -0.5}])
    assert artifacts.read_csv(file) == [{"class": name, "accuracy": "-0.5"}]
    with file.open(encoding="utf-8", newline="") as opened:
        (row,) = csv.DictReader(opened)
    assert not re.match(r"\s*[=+\-@＝]|[\t\r]", row["class"])
    assert (row["class"] == name) == (name in {"ant", "'ant", "", "a=b", "'"})
    assert row["accuracy"] == "-0.5"


@pytest.mark.parametrize(("kind", "said"), [("pipe", "a named pipe"), ("folder", "a folder"), ("link", "a named pipe")])
def test_what_is_no_regular_file_is_refused_and_not_waited_for(kind: str, said: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("pipe")
    with pytest.raises(UserError, match=rf"{kind}: is {said}, not a file$"):
        artifacts.present(tmp_path / kind)
    with pytest.raises(UserError, match=r"^/dev/zero: is a device, not a file$"):
        artifacts.present(Path("/dev/zero"))


@pytest.mark.slow
def test_a_kill_leaves_the_earlier_file_and_what_it_left_goes_with_the_next_write(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    artifacts.write_text(file, "good")
    code = (
        "import os, pathlib, signal, sys\n"
        "from ltrec.artifacts import replacing\n"
        "with replacing(pathlib.Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(file)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert file.read_text(encoding="utf-8") == "good"
    assert len(names(tmp_path)) == 2
    artifacts.write_text(file, "better")
    assert names(tmp_path) == {"a.txt"}


def test_two_writers_at_once_do_not_take_each_others_files(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    with replacing(file) as first:
        first.write_text("first", encoding="utf-8")
        artifacts.write_text(file, "second")
        assert first.read_text(encoding="utf-8") == "first"
    assert file.read_text(encoding="utf-8") == "first"


def test_the_umask_decides_who_may_read(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        artifacts.write_text(tmp_path / "a.txt", "")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o640


def test_json_comes_back_and_is_never_nan(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    artifacts.write_json(file, {"τ": [0.1, None], "n": 3})
    assert artifacts.read_json(file) == {"τ": [0.1, None], "n": 3}
    with pytest.raises(ValueError, match="nan"):
        artifacts.write_json(file, {"loss": float("nan")})
    assert artifacts.read_json(file)["n"] == 3


@pytest.mark.parametrize("content", [b'{"a": ', b"\xff\xfe"])
def test_damaged_json_is_named(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.json: damaged JSON") as raised:
        artifacts.read_json(file)
    assert "\n" not in str(raised.value)


def test_csv_keeps_every_digit(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    artifacts.write_csv(file, [{"epoch": 1, "loss": 0.1 + 0.2}, {"epoch": 2, "loss": 1e-17}])
    assert [float(row["loss"]) for row in artifacts.read_csv(file)] == [0.1 + 0.2, 1e-17]
    assert file.read_bytes().startswith(b"epoch,loss\n1,")


def test_tensors_and_header_come_back(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    across = torch.arange(6.0).reshape(2, 3).T  # not contiguous
    artifacts.save_tensors(file, {"across": across, "empty": torch.zeros(0, dtype=torch.int64)}, {"of": "λ", "n": [1]})
    tensors, header = artifacts.load_tensors(file)
    assert torch.equal(tensors["across"], across)
    assert tensors["empty"].dtype == torch.int64
    assert header == {"of": "λ", "n": [1]}


@pytest.mark.parametrize("kept", [0, 5, 60, -1])
def test_truncated_tensors_are_damaged(tmp_path: Path, kept: int) -> None:
    file = tmp_path / "a.safetensors"
    artifacts.save_tensors(file, {"a": torch.ones(100)}, {})
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(UserError, match=r"a\.safetensors: damaged or not a safetensors file") as raised:
        artifacts.load_tensors(file)
    assert "\n" not in str(raised.value)


def test_foreign_tensors_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    save_file({"weight": torch.ones(2)}, file)
    with pytest.raises(UserError, match="not one of ltrec's"):
        artifacts.load_tensors(file)


def test_a_missing_artifact_names_its_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for missing, stage in (
        (Layout().stats, "prepare"),
        (Layout().history, "represent"),
        (Layout().features("val"), "featurize"),
        (Layout().head("crt"), "rebalance crt"),
        (Layout().evaluation_metrics, "evaluate"),
    ):
        with pytest.raises(UserError, match=f"no such file; `ltrec {stage}`"):
            artifacts.present(missing)
    with pytest.raises(UserError, match=r"elsewhere/a: no such file$"):
        artifacts.present(Path("elsewhere/a"))


def test_digest_follows_content_not_names(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_bytes(b"same")
    second.write_bytes(b"same")
    assert artifacts.digest(first, {"lr": 0.1, "seed": 1}) == artifacts.digest(second, {"seed": 1, "lr": 0.1})
    second.write_bytes(b"Same")
    assert artifacts.digest(first) != artifacts.digest(second)


def test_digest_keeps_its_parts_apart() -> None:
    assert len({artifacts.digest("ab", "c"), artifacts.digest("a", "bc"), artifacts.digest("c", "ab")}) == 3
    assert artifacts.digest(1) != artifacts.digest("1") != artifacts.digest(1, None)
