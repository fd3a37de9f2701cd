"""The pipeline as ltrec's own `dvc.yaml` declares it: each stage's dependencies, parameters and outputs.

In a checkout the file stands beside the package, in an installed wheel it lies inside.
"""

from __future__ import annotations

import functools
import os
import re
from dataclasses import dataclass
from pathlib import Path

from ltrec import artifacts
from ltrec.artifacts import Layout

PACKAGE = Path(__file__).parent
_METHOD = "${item.method}"
_FITS_OTHERS = "ensemble"  # the method whose result depends on the modules of all


@dataclass(frozen=True)
class Stage:
    """A stage of the pipeline; a `foreach` stage stands for all its variants."""

    name: str
    code: tuple[str, ...]
    """The modules and folders of modules that decide its result, relative to the folder that holds the package."""
    deps: tuple[str, ...]
    """The other files and folders that it reads; `${…}` stands where DVC fills something in."""
    params: tuple[str, ...]
    """The parameters that it reads, as dotted paths."""
    outs: tuple[str, ...]
    """The files and folders that it writes, metrics among them."""
    for_each_variant: bool


def definition(package: Path = PACKAGE) -> Path | None:
    """Return the `dvc.yaml` that belongs to the package; None where there is none."""
    return next((file for file in (package / "dvc.yaml", package.parent / "dvc.yaml") if file.is_file()), None)


def definition_text() -> str:
    """Return the content of the `dvc.yaml` that belongs to the package."""
    file = definition()
    assert file is not None, "the wheel holds it, and so does a checkout"
    return file.read_text(encoding="utf-8")


def stages(package: Path = PACKAGE) -> dict[str, Stage]:
    """Return the stages by name, in the order in which they run; empty where the package has no `dvc.yaml`."""
    file = definition(package)
    return {} if file is None else _parsed(file, file.stat().st_mtime_ns)


def code_digest(*names: str, method: str | None = None, package: Path = PACKAGE) -> str:
    """Return a digest of the modules that stages depend on: with other code the same settings may give another result.

    Args:
        names: Names of stages; none: all of them.
        method: The rebalancing method whose module is meant, where a stage depends on one of several; None: on all, as
            an ensemble depends on those of its members, whichever they are.
        package: The folder of the package.
    """
    return _code_digest(names, method, package)


def methods(package: Path = PACKAGE) -> list[str]:
    """Return the names of the rebalancing methods' modules."""
    code = [part for stage in stages(package).values() for part in stage.code if _METHOD in part]
    folders = {package.parent / part.partition("/$")[0] for part in code}
    modules = {file.stem for folder in folders for file in folder.glob("[a-z]*.py")}
    return sorted(modules - {Path(part).stem for stage in stages(package).values() for part in stage.code})


def digest_file(stage: str, method: str | None = None) -> Path:
    """Return where the digest of a stage's code lies, or of a rebalancing method's."""
    return Layout().root / "version" / f"{stage if method is None else f'{stage}.{method}'}.txt"


def write_digests() -> None:
    """Write the digest of each stage's code: a project without the modules depends on these in their place."""
    for stage in stages().values():
        for method in methods() if stage.for_each_variant else [None]:
            artifacts.write_text(digest_file(stage.name, method), f"{code_digest(stage.name, method=method)}\n")


def files_below(part: Path) -> list[Path]:
    """Return a file itself, or all files below a folder, links followed, in the order of their paths."""
    if not part.is_dir():
        return [part]
    found, seen = list[Path](), {part.resolve()}
    for folder, folders, names in os.walk(part, followlinks=True):
        # A link to a folder above it would lead round and round.
        folders[:] = [name for name in sorted(folders) if Path(folder, name).resolve() not in seen]
        seen |= {Path(folder, name).resolve() for name in folders}
        found += [Path(folder, name) for name in names]
    return sorted(file for file in found if file.is_file())


@functools.cache
def _code_digest(names: tuple[str, ...], method: str | None, package: Path) -> str:
    declared = stages(package)
    parts = {part for name in names or declared for part in declared[name].code} if declared else {package.name}
    files = sorted({file for part in parts for file in _modules(part, method, package)})
    return artifacts.digest(*(part for file in files for part in (file.relative_to(package).as_posix(), file)))


def _modules(part: str, method: str | None, package: Path) -> list[Path]:
    """Return the files that a dependency on code stands for; without a method, one on its module is on the folder."""
    of_all = method in {None, _FITS_OTHERS}
    path = package.parent / (part.partition("/$")[0] if of_all else part.replace(_METHOD, str(method)))
    return [file for file in files_below(path) if file.is_file() and "__pycache__" not in file.parts]


@functools.cache
def _parsed(file: Path, _changed: int) -> dict[str, Stage]:
    from ruamel.yaml import YAML

    declared = YAML(typ="safe").load(file)["stages"]
    return {name: _stage(name, content.get("do", content), "foreach" in content) for name, content in declared.items()}


def _stage(name: str, content: dict[str, list[str | dict[str, object]]], for_each_variant: bool) -> Stage:
    deps = _names(content, "deps")
    code = tuple(dep for dep in deps if re.match(rf"{PACKAGE.name}/", dep))
    outs = (*_names(content, "outs"), *_names(content, "metrics"))
    other = tuple(dep for dep in deps if dep not in code)
    return Stage(name, code, other, _names(content, "params"), outs, for_each_variant)


def _names(content: dict[str, list[str | dict[str, object]]], key: str) -> tuple[str, ...]:
    """Return the entries of a list, each of which is a name or a mapping from the name to how DVC treats it."""
    return tuple(next(iter(entry)) if isinstance(entry, dict) else entry for entry in content.get(key, ()))
