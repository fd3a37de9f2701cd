"""Git and DVC are begun where they are not, and photographs are not doubled."""

from __future__ import annotations

import errno
import fcntl
import subprocess
from pathlib import Path

import pytest

from ltrec.errors import UserError
from ltrec.scaffold import git_and_dvc


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))


def dvc(*arguments: str) -> str:
    return git_and_dvc._dvc(*arguments)


@pytest.mark.slow
def test_both_are_begun_once(capfd: pytest.CaptureFixture[str]) -> None:
    git_and_dvc.begin()
    assert Path(".git").is_dir()
    assert dvc("config", "plots.html_template").strip() == "plots/page.html"
    assert dvc("config", "core.analytics").strip() == "false"
    assert "Git repository" in capfd.readouterr().err
    Path(".dvc/config").write_text("[core]\n    autostage = true\n", encoding="utf-8")
    git_and_dvc.begin()
    assert Path(".dvc/config").read_text(encoding="utf-8") == "[core]\n    autostage = true\n"
    assert capfd.readouterr().err == ""


@pytest.mark.slow
def test_below_a_repository_and_without_git(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    subprocess.run(["git", "init", "--quiet"], check=True)
    inside = tmp_path / "inside"
    inside.mkdir()
    monkeypatch.chdir(inside)
    git_and_dvc.begin()
    assert not Path(".git").exists()
    assert Path(".dvc").is_dir()
    alone = tmp_path / "alone"
    alone.mkdir()
    monkeypatch.chdir(alone)
    monkeypatch.setattr(git_and_dvc.project, "git", lambda *_: None)
    monkeypatch.setattr(git_and_dvc.shutil, "which", lambda _: None)
    capfd.readouterr()
    git_and_dvc.begin()
    assert "no Git" in capfd.readouterr().err
    assert dvc("config", "core.no_scm").strip() == "True"


@pytest.mark.slow
def test_what_they_refuse_is_one_line() -> None:
    Path(".dvc").mkdir()  # a folder of something else
    with pytest.raises(UserError, match=r"init: `dvc init` failed: .*\.dvc") as caught:
        git_and_dvc.begin()
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_the_kinds_of_links_that_work_are_set_on_this_machine_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    git_and_dvc.begin()
    Path("data").mkdir()

    def no_reflinks(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "no reflinks here")

    monkeypatch.setattr(fcntl, "ioctl", no_reflinks)
    git_and_dvc.link_cache(Path("data"))
    assert dvc("config", "--local", "cache.type").strip() == "hardlink,symlink"
    assert "cache" not in Path(".dvc/config").read_text(encoding="utf-8")
    Path("data/a.txt").write_text("a photograph", encoding="utf-8")
    dvc("add", "--quiet", "data")
    assert Path("data/a.txt").stat().st_nlink == 2, "one file under two names"
    dvc("config", "--local", "cache.type", "copy")
    git_and_dvc.link_cache(Path("data"))
    assert dvc("config", "--local", "cache.type").strip() == "copy", "what is set stays"


def test_on_another_file_system_only_symbolic_links_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".dvc").mkdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    real = Path.stat

    class Other:
        st_dev = -1

    monkeypatch.setattr(Path, "stat", lambda path, **options: Other() if path == elsewhere else real(path, **options))
    assert [kind for kind in git_and_dvc._LINKS if git_and_dvc._can(kind, elsewhere)] == ["symlink"]
    assert git_and_dvc._can("hardlink", tmp_path)
    assert list(Path(".dvc").iterdir()) == [], "nothing is left behind"
