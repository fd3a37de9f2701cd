from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ltrec import project
from ltrec.errors import UserError


@pytest.fixture(autouse=True)
def _no_dvc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))


@pytest.mark.parametrize("mark", [".dvc", "params.yaml"])
def test_root_is_the_nearest_folder_with_a_mark(mark: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = tmp_path / "project/src/deep"
    inner.mkdir(parents=True)
    for folder in (tmp_path, tmp_path / "project"):
        (folder / mark).mkdir() if mark == ".dvc" else (folder / mark).touch()
    monkeypatch.chdir(inner)
    assert project.root() == tmp_path / "project"
    assert project.state_dir() == tmp_path / "project/.ltrec"
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "elsewhere"))
    assert project.root() == tmp_path / "elsewhere"


def test_root_without_a_mark_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert project.root() == tmp_path


def test_git_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*arguments: str) -> str:
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
        return subprocess.run(command, cwd=tmp_path / "clean", check=True, capture_output=True, text=True).stdout

    outside = tmp_path / "outside"
    for folder in (outside, tmp_path / "clean"):
        folder.mkdir()
    monkeypatch.chdir(outside)
    assert project.git_state() == project.GitState(None, None)
    assert project.committed(Path("file")) is None

    monkeypatch.chdir(tmp_path / "clean")
    git("init")
    (tmp_path / "clean/file").write_text("a", encoding="utf-8")
    git("add", "file")
    git("commit", "--message", "one")
    commit = git("rev-parse", "HEAD").strip()
    assert project.git_state() == project.GitState(commit, dirty=False)

    # What a process saw first holds for it; another one sees the change.
    (tmp_path / "clean/file").write_text("b", encoding="utf-8")
    assert project.git_state() == project.GitState(commit, dirty=False)
    project._git_state.cache_clear()
    assert project.git_state() == project.GitState(commit, dirty=True)
    assert project.committed(Path("file")) == "a"
    assert project.committed(Path("other")) is None


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "deep/a.lock"
    with (
        project.lock(path),
        pytest.raises(UserError, match=f"a.lock: held by process {os.getpid()}, which"),
        project.lock(path, patience=0),
    ):
        pass
    with project.lock(path, patience=0):
        pass


@pytest.mark.slow
def test_a_killed_holder_frees_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    code = f"from ltrec import project; from pathlib import Path\nwith project.lock(Path({str(path)!r})):\n input('in')"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.read(2) == b"in"
        with pytest.raises(UserError, match=f"process {holder.pid}"), project.lock(path, patience=0):
            pass
        holder.kill()
    with project.lock(path, patience=0):
        pass


def test_a_holder_may_remove_the_lock_file(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    with project.lock(path):
        path.unlink()
        # The removed file's lock keeps nobody from the new one.
        with project.lock(path, patience=0), pytest.raises(UserError), project.lock(path, patience=0):
            pass


@pytest.mark.slow
def test_light_to_import() -> None:
    code = "import sys, ltrec.project; assert not {'torch', 'mlflow', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
