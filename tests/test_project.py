from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from ruamel.yaml import YAML

from ltrec import project
from ltrec.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable


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


def test_the_code_digest_is_of_what_a_stage_depends_on(tmp_path: Path) -> None:
    """Half-finished trainings are kept when anything else is edited."""
    package = tmp_path / "ltrec"
    (package / "methods").mkdir(parents=True)
    (package / "parts").mkdir()
    modules = [package / name for name in ("parts/one.py", "methods/crt.py", "represent.py", "cli.py")]
    for module in modules:
        module.touch()
    stages = {
        "represent": {"deps": ["data", "ltrec/parts", "ltrec/represent.py"]},
        "rebalance": {"foreach": ["crt"], "do": {"deps": ["ltrec/methods/${item.method}.py"]}},
    }

    def digests() -> list[str]:
        project._code_digest.cache_clear()
        return [project._code_digest(package, of) for of in (("represent",), ("rebalance",), ())]

    def changed(edit: Callable[[], object]) -> list[bool]:
        before = digests()
        edit()
        return [one != other for one, other in zip(before, digests(), strict=True)]

    assert len(set(digests())) == 1, "without dvc.yaml it is of the whole package"
    YAML(typ="safe").dump({"stages": stages}, tmp_path / "dvc.yaml")
    assert changed(lambda: (package / "parts/one.py").write_text("1")) == [True, False, True]
    assert changed((package / "parts/two.py").touch) == [True, False, True]
    assert changed(lambda: (package / "represent.py").rename(package / "train.py")) == [True, False, True]
    assert changed(lambda: (package / "methods/crt.py").write_text("1")) == [False, True, True]
    assert changed(lambda: (package / "cli.py").write_text("1")) == [False, False, False]
    assert changed((package / "parts/notes.txt").touch) == [False, False, False]


def test_editing_a_help_text_leaves_the_digest_of_the_training(tmp_path: Path) -> None:
    root = Path(project.__file__).parents[1]
    copy = tmp_path / "ltrec"
    shutil.copytree(root / "ltrec", copy, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(root / "dvc.yaml", tmp_path)
    before = project._code_digest(copy, ("represent",))
    assert before == project.code_digest("represent")
    for name in ("cli/commands.py", "errors.py", "evaluation/metrics.py", "tracking/__init__.py"):
        (copy / name).write_text("changed", encoding="utf-8")
    project._code_digest.cache_clear()
    assert project._code_digest(copy, ("represent",)) == before
    (copy / "training/loop.py").write_text("changed", encoding="utf-8")
    project._code_digest.cache_clear()
    assert project._code_digest(copy, ("represent",)) != before
