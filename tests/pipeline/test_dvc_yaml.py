"""dvc.yaml against the code: a stage depends on every module that decides its result, and on no other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grimp
import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
# These watch a stage, start it or speak for it; a change in them changes no artifact.
OBSERVERS = {
    "ltrec",
    "ltrec.console",
    "ltrec.process",
    "ltrec.profiling",
    "ltrec.project",
    "ltrec.tracking",
    "ltrec.evaluation.vega",
}


@pytest.fixture(scope="module")
def stages() -> dict[str, Any]:
    stages: dict[str, Any] = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
    return stages


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("ltrec", exclude_type_checking_imports=True, cache_dir=None)


def modules_of(graph: grimp.ImportGraph, module: str) -> set[str]:
    """The module, and what it imports at run time, observers left out and not looked behind."""
    found, queue = set[str](), [module]
    while queue:
        current = queue.pop()
        if current in found or any(current == name or current.startswith(f"{name}.") for name in OBSERVERS - {"ltrec"}):
            continue
        found.add(current)
        queue.extend(graph.find_modules_directly_imported_by(current))
    return found - OBSERVERS


def path_of(module: str) -> str:
    path = Path(*module.split("."))
    return str(path / "__init__.py" if (ROOT / path).is_dir() else path.with_suffix(".py"))


def code_deps(stage: dict[str, Any]) -> set[str]:
    return {dep for dep in stage["deps"] if dep.startswith("ltrec/")}


@pytest.mark.parametrize("name", ["prepare", "represent", "featurize", "evaluate", "export"])
def test_a_stage_depends_on_the_modules_that_it_imports(
    name: str, stages: dict[str, Any], graph: grimp.ImportGraph
) -> None:
    assert code_deps(stages[name]) == {path_of(module) for module in modules_of(graph, f"ltrec.stages.{name}")}


def test_a_variant_depends_on_its_own_method_only(stages: dict[str, Any], graph: grimp.ImportGraph) -> None:
    declared = code_deps(stages["rebalance"]["do"])
    methods = sorted(path.stem for path in (ROOT / "ltrec/rebalancers").glob("[a-z]*.py") if path.stem != "base")
    imported = modules_of(graph, "ltrec.stages.rebalance").union(
        *(modules_of(graph, f"ltrec.rebalancers.{method}") for method in methods)
    )
    own = {f"ltrec/rebalancing/methods/{method}.py" for method in methods}
    expected = {path_of(module) for module in imported} - own | {"ltrec/rebalancing/methods/${item.method}.py"}
    assert declared == expected


def test_no_method_builds_on_another(graph: grimp.ImportGraph) -> None:
    # DVC is told of a variant's own method alone.
    methods = {f"ltrec.rebalancers.{path.stem}" for path in (ROOT / "ltrec/rebalancers").glob("[a-z]*.py")}
    for method in methods - {"ltrec.rebalancing.methods.base"}:
        assert modules_of(graph, method) & methods <= {method, "ltrec.rebalancing.methods.base"}


def test_the_representations_settings_are_depended_on_as_a_whole(stages: dict[str, Any]) -> None:
    # DVC stops where params.yaml lacks a key that a stage names, and all but `represent` itself may be left out.
    named = {name: stage.get("do", stage)["params"] for name, stage in stages.items()}
    assert [name for name, keys in named.items() if "represent" in keys] == ["represent", "featurize", "rebalance"]
    assert not [key for keys in named.values() for key in keys if key.startswith("represent.")]
