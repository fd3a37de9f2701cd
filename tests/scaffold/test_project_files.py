"""The files of a new project: the checkout's pipeline, and what exists stays."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from ruamel.yaml import YAML

from ltrec import pipeline
from ltrec.errors import UserError
from ltrec.scaffold import project_files

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def flat(stages: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, stage in stages.items():
        yield name, stage.get("do", stage)


def test_a_projects_pipeline_is_the_checkouts_with_digests_for_modules() -> None:
    yaml = YAML(typ="safe")
    ours, theirs = yaml.load(project_files.pipeline_text()), yaml.load(ROOT / "dvc.yaml")
    version = ours["stages"].pop("version")
    assert version == {"cmd": "exec ltrec version", "always_changed": True, "outs": ["artifacts/version"]}
    assert list(ours["stages"]) == list(theirs["stages"])
    for (name, mine), (_, checkouts) in zip(flat(ours["stages"]), flat(theirs["stages"]), strict=True):
        assert {key: value for key, value in mine.items() if key != "deps"} == {
            key: value for key, value in checkouts.items() if key != "deps"
        }
        code = f"artifacts/version/{name}{'.${item.method}' if name == 'rebalance' else ''}.txt"
        assert [dep for dep in mine["deps"] if not dep.startswith("artifacts/version/")] == [
            dep for dep in checkouts["deps"] if not dep.startswith("ltrec/")
        ]
        assert [dep for dep in mine["deps"] if dep.startswith("artifacts/version/")] == [code]
    assert "ltrec/" not in project_files.pipeline_text().replace(".ltrec/", "")
    project_files.write_templates()
    for plot in ours["plots"]:
        for content in plot.values() if isinstance(plot, dict) else ():
            if content["template"] != "simple":
                assert (project_files.PLOTS / content["template"]).is_file(), "where DVC seeks it"


def test_files_that_exist_stay_and_the_lines_that_they_lack_are_named(capfd: pytest.CaptureFixture[str]) -> None:
    Path(".gitignore").write_text("*.tmp\n/.ltrec/\n", encoding="utf-8")
    written = project_files.write(project_files.files(Path("photos")))
    assert Path(".gitignore").read_text(encoding="utf-8") == "*.tmp\n/.ltrec/\n"
    assert Path(".gitignore") not in written
    assert Path("dvc.yaml") in written
    said = capfd.readouterr().err
    assert ".gitignore exists" in said
    assert "/photos" in said
    assert "/mlruns/" in said
    assert "/.ltrec/" not in said


@pytest.mark.parametrize(("data", "ignored"), [("photos", True), ("../photos", False), ("/srv/photos", False)])
def test_git_ignores_images_inside_of_the_project(data: str, ignored: bool) -> None:
    (gitignore,) = (file for file in project_files.files(Path(data)) if file.path.name == ".gitignore")
    assert (f"/{data}" in gitignore.text.splitlines()) is ignored


def test_parameters_or_another_pipeline_are_in_the_way() -> None:
    project_files.require_free(Path("params.yaml"))
    Path("dvc.yaml").write_text(pipeline.definition_text(), encoding="utf-8")
    project_files.require_free(Path("params.yaml"))
    for text in ("stages: {train: {cmd: make}}", "stages: [", "", "\xff"):
        Path("dvc.yaml").write_text(text, encoding="latin-1")
        with pytest.raises(UserError, match=r"dvc\.yaml.*lacks ltrec's stages.*move it away"):
            project_files.require_free(Path("params.yaml"))
    Path("dvc.yaml").unlink()
    Path("params.yaml").touch()
    with pytest.raises(UserError, match=r"params\.yaml: exists and stays as it is; move it away"):
        project_files.require_free(Path("params.yaml"))


def test_odd_names_are_ignored_as_they_are() -> None:
    (gitignore,) = (file for file in project_files.files(Path("ph [1]*")) if file.path.name == ".gitignore")
    assert gitignore.text.splitlines()[0] == r"/ph\ \[1]\*"
