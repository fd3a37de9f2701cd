"""What `dvc.yaml` declares, as the code reads it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from ruamel.yaml import YAML

from ltrec import pipeline
from ltrec.scaffold import project_files

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest


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
        pipeline._code_digest.cache_clear()
        return [pipeline.code_digest(*of, package=package) for of in (("represent",), ("rebalance",), ())]

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
    assert changed((package / "parts/notes.txt").touch) == [True, False, True], "as DVC sees a folder"
    (package / "parts/__pycache__").mkdir()
    assert changed((package / "parts/__pycache__/one.pyc").touch) == [False, False, False]


def test_editing_a_help_text_leaves_the_digest_of_the_training(tmp_path: Path) -> None:
    root = Path(pipeline.__file__).parents[1]
    copy = tmp_path / "ltrec"
    shutil.copytree(root / "ltrec", copy, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(root / "dvc.yaml", tmp_path)
    before = pipeline.code_digest("represent", package=copy)
    assert before == pipeline.code_digest("represent")
    for name in ("cli/commands.py", "errors.py", "evaluation/metrics.py", "tracking/__init__.py"):
        (copy / name).write_text("changed", encoding="utf-8")
    pipeline._code_digest.cache_clear()
    assert pipeline.code_digest("represent", package=copy) == before
    (copy / "training/loop.py").write_text("changed", encoding="utf-8")
    pipeline._code_digest.cache_clear()
    assert pipeline.code_digest("represent", package=copy) != before


def test_a_project_depends_on_one_methods_code_at_a_time(tmp_path: Path) -> None:
    root = Path(pipeline.__file__).parents[1]
    copy = tmp_path / "ltrec"
    shutil.copytree(root / "ltrec", copy, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(root / "dvc.yaml", copy)  # as a wheel has it
    methods = pipeline.methods(copy)
    assert {"joint", "crt", "ncm"} <= set(methods)
    assert not {"base", "__init__"} & set(methods)

    def digests() -> dict[str, str]:
        pipeline._code_digest.cache_clear()
        return {method: pipeline.code_digest("rebalance", method=method, package=copy) for method in methods}

    before = digests()
    assert len(set(before.values())) == len(methods)
    (copy / "rebalancing/methods/crt.py").write_text("changed", encoding="utf-8")
    assert [method for method, digest in digests().items() if digest != before[method]] == ["crt", "ensemble"]
    (copy / "rebalancing/selection.py").write_text("changed", encoding="utf-8")
    assert not set(digests().values()) & set(before.values())


def test_the_digests_that_a_projects_dvc_yaml_names_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pipeline.write_digests()
    written = {file.relative_to(tmp_path).as_posix() for file in (tmp_path / "artifacts/version").iterdir()}
    named = set(re.findall(r"artifacts/version/\S+\.txt", project_files.pipeline_text()))
    method = "artifacts/version/rebalance.${item.method}.txt"
    assert method in named
    assert named - {method} == {name for name in written if "/rebalance." not in name}
    assert {method.replace("${item.method}", name) for name in pipeline.methods()} <= written
