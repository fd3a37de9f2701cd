"""dvc.yaml against the code: a stage depends on every module that decides its result, and on no other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import grimp
import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
METHODS = sorted(path.stem for path in (ROOT / "ltrec/rebalancing/methods").glob("[a-z]*.py") if path.stem != "base")
# These watch a stage, start it, check its parameters or speak for it; a change in them changes no artifact.
OBSERVERS = {
    "ltrec",
    "ltrec.console",
    "ltrec.errors",
    "ltrec.pipeline",
    "ltrec.process",
    "ltrec.profiling",
    "ltrec.project",
    "ltrec.settings",
    "ltrec.stages.recording",
    "ltrec.tracking",
}
ALL = {str(path.relative_to(ROOT)) for path in (ROOT / "ltrec").rglob("*.py")}
# What a stage builds from another section's settings.
READ_SETTINGS = {
    "featurize": ("ltrec.data.images.augmentation",),
    "rebalance": ("ltrec.data.images.augmentation",),
}
# Only sweeps away the resume state of a training whose network is safe; no features depend on it.
SWEEPS = {"featurize": {"ltrec/training/resume.py"}}
STAGES = ("prepare", "represent", "featurize", *(f"rebalance@{method}" for method in METHODS), "evaluate", "export")


@pytest.fixture(scope="module")
def stages() -> dict[str, Any]:
    stages: dict[str, Any] = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
    return stages


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("ltrec", exclude_type_checking_imports=True, cache_dir=None)


def code_deps(stage: str, stages: dict[str, Any]) -> list[str]:
    """Return the files and folders of the package that a stage, or a variant's, depends on."""
    name, _, method = stage.partition("@")
    deps = stages[name].get("do", stages[name])["deps"]
    return [dep.replace("${item.method}", method) for dep in deps if dep.startswith("ltrec/")]


def imported(graph: grimp.ImportGraph, *modules: str) -> set[str]:
    """Return the files of modules and of what they import at run time, observers left out and not looked behind."""
    found, queue = set[str](), list(modules)
    while queue:
        current = queue.pop()
        if current in found or any(current == name or current.startswith(f"{name}.") for name in OBSERVERS - {"ltrec"}):
            continue
        found.add(current)
        queue.extend(graph.find_modules_directly_imported_by(current))
    return {path_of(module) for module in found - OBSERVERS}


def path_of(module: str) -> str:
    path = Path(*module.split("."))
    return str(path / "__init__.py" if (ROOT / path).is_dir() else path.with_suffix(".py"))


def below(dep: str) -> set[str]:
    """Return the modules that a dependency stands for."""
    path = ROOT / dep
    return {str(file.relative_to(ROOT)) for file in (path.rglob("*.py") if path.is_dir() else [path])}


def imports_of(stage: str, graph: grimp.ImportGraph, stages: dict[str, Any]) -> set[str]:
    """Return the files that decide a stage's result: what it imports, and the settings that are handed to it."""
    name, _, method = stage.partition("@")
    modules = [f"ltrec.stages.{name}", *READ_SETTINGS.get(name, ())]
    modules += [f"ltrec.config.{name}"] if path_of(f"ltrec.config.{name}") in ALL else []
    modules += [f"ltrec.rebalancing.methods.{method}"] if method else []
    # The defaults of a section that the stage reads, where params.yaml leaves something out.
    sections = {path_of(f"ltrec.config.{key}") for key in stages[name].get("do", stages[name])["params"]}
    return imported(graph, *modules) - SWEEPS.get(name, set()) | (sections & ALL)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_every_module_that_it_can_import(
    stage: str, stages: dict[str, Any], graph: grimp.ImportGraph
) -> None:
    declared = set[str]().union(*map(below, code_deps(stage, stages)))
    assert imports_of(stage, graph, stages) <= declared


@pytest.mark.parametrize("stage", [stage for stage in STAGES if not stage.startswith("rebalance")])
def test_a_stage_depends_on_no_module_that_it_cannot_import(
    stage: str, stages: dict[str, Any], graph: grimp.ImportGraph
) -> None:
    declared = set[str]().union(*map(below, code_deps(stage, stages)))
    assert {path for path in declared if not path.endswith("__init__.py")} <= imports_of(stage, graph, stages)


def test_no_method_builds_on_another(graph: grimp.ImportGraph) -> None:
    # DVC is told of a variant's own method alone.
    paths = {f"ltrec/rebalancing/methods/{method}.py" for method in METHODS}
    for method in METHODS:
        own = imported(graph, f"ltrec.rebalancing.methods.{method}")
        assert own & paths == {f"ltrec/rebalancing/methods/{method}.py"}


VARIANTS = tuple(stage for stage in STAGES if stage.startswith("rebalance"))


@pytest.mark.parametrize(
    ("edited", "rerun"),
    [
        ("README.md", ()),
        ("ltrec/errors.py", ()),
        ("ltrec/console.py", ()),
        ("ltrec/cli/commands.py", ()),
        ("ltrec/config/params.py", ()),
        ("ltrec/tracking/__init__.py", ()),
        ("ltrec/stages/recording.py", ()),
        ("ltrec/published/import_checkpoint.py", ()),
        ("ltrec/data/downloads/digits.py", ()),
        ("ltrec/data/sources/inaturalist.py", ("prepare",)),
        ("ltrec/data/shot_groups.py", ("prepare", "evaluate")),
        ("ltrec/data/images/augmentation.py", ("represent", "featurize", *VARIANTS)),
        ("ltrec/training/loop.py", ("represent",)),
        ("ltrec/training/losses/cross_entropy.py", ("represent", "featurize", *VARIANTS)),
        ("ltrec/training/samplers.py", ("represent", "featurize", *VARIANTS)),
        ("ltrec/rebalancing/methods/crt.py", ("rebalance@crt",)),
        ("ltrec/rebalancing/head_training.py", ("featurize", *VARIANTS)),
        ("ltrec/evaluation/metrics.py", ("evaluate",)),
        ("ltrec/evaluation/report.py", ("evaluate",)),
        ("ltrec/rebalancing/leave_one_out.py", ("evaluate",)),
        ("ltrec/stages/bank_findings.py", ("evaluate",)),
        ("ltrec/serving/onnx_export.py", ("export",)),
    ],
)
def test_what_an_edit_reruns(edited: str, rerun: tuple[str, ...], stages: dict[str, Any]) -> None:
    assert (ROOT / edited).is_file()
    dependents = [
        stage for stage in STAGES if any(Path(edited).is_relative_to(dep) for dep in code_deps(stage, stages))
    ]
    assert dependents == list(rerun)


PREPARED = {
    "represent": ["train.cache.txt", "train.digest.txt", "val.digest.txt"],
    "featurize": ["train.cache.txt", "train.digest.txt", "val.digest.txt", "test.digest.txt"],
    "rebalance": ["train.cache.txt", "train.digest.txt"],
    "evaluate": [
        "train.txt",
        "val.txt",
        "test.txt",
        "classes.txt",
        "train.digest.txt",
        "val.digest.txt",
        "test.digest.txt",
    ],
    "export": ["classes.txt", "train.digest.txt", "val.digest.txt"],
}


def test_names_and_paths_train_nothing(stages: dict[str, Any]) -> None:
    # A list is opened wherever images are, and classes are counted in it: the digests stand for both, without names.
    declared = {
        name: [dep.rpartition("/")[2] for dep in stage.get("do", stage)["deps"] if dep.startswith("artifacts/prepare/")]
        for name, stage in stages.items()
    }
    assert declared == {"prepare": [], **PREPARED}


@pytest.mark.parametrize("stage", PREPARED)
def test_a_stage_depends_on_the_digest_of_each_list_that_it_reads(stage: str) -> None:
    code = (ROOT / f"ltrec/stages/{stage}.py").read_text(encoding="utf-8")
    read = set(re.findall(r'(?:split_list|features)\("(train|val|test)"\)', code))
    named = {name.partition(".")[0] for name in PREPARED[stage]}
    assert read <= named | ({"val"} if stage == "rebalance" else set())  # val's features alone


def test_compiled_modules_are_no_dependencies() -> None:
    assert "__pycache__" in (ROOT / ".dvcignore").read_text(encoding="utf-8").splitlines()


def test_the_representations_settings_are_depended_on_as_a_whole(stages: dict[str, Any]) -> None:
    # DVC stops where params.yaml lacks a key that a stage names, and all but `represent` itself may be left out.
    named = {name: stage.get("do", stage)["params"] for name, stage in stages.items()}
    assert [name for name, keys in named.items() if "represent" in keys] == ["represent", "featurize", "rebalance"]
    assert not [key for keys in named.values() for key in keys if key.startswith("represent.")]
