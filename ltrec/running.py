"""`ltrec run`: all stages in order without DVC, each only where something that it depends on has changed.

What a stage depends on is what `dvc.yaml` says: files, parameters and modules. What it was run with is remembered in
`.ltrec/run.json`; `dvc repro` knows nothing of that, nor this of `dvc.lock`.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltrec import artifacts, console, pipeline, project
from ltrec.config.params import load
from ltrec.errors import UserError
from ltrec.process import STARTED_BY_RUN

if TYPE_CHECKING:
    from collections.abc import Collection

    from ltrec.config.params import Params

_FOLDER = Path(".ltrec")
_GRACE = 5.0  # seconds that an interrupted stage has to end by itself


@dataclass(frozen=True)
class Step:
    """One stage, or one variant of a stage: its command, and what it reads and writes."""

    name: str
    command: tuple[str, ...]
    code: str
    """Digest of the modules that decide its result."""
    params: dict[str, Any]
    deps: tuple[str, ...]
    outs: tuple[str, ...]


def run(params: Params, params_file: Path, *, force: bool = False, without: Collection[str] = ()) -> int:
    """Run the stages that are not up to date, and return 0, or the exit code of the first that fails.

    Args:
        params: The parameters, as `params_file` has them.
        params_file: Their file.
        force: Whether to run all stages.
        without: Names of stages that are left out.

    Raises:
        UserError: Another run is at work here, or a step's parameters were changed while it ran.
    """
    memory = _Memory(_FOLDER / "run.json")
    with project.lock(_FOLDER / "run.lock", patience=0):
        for step in steps(params, without=without):
            if not force and memory.is_up_to_date(step):
                console.say(f"run: {step.name} is up to date")
                continue
            console.say(f"run: {step.name}")
            if code := _finish(step, params_file):
                return code
            if step.params not in (other.params for other in steps(load(params_file)) if other.name == step.name):
                raise UserError(f"has changed while {step.name} ran; run it again", where=str(params_file))
            memory.remember(step)
    return 0


def is_up_to_date(params: Params, *, without: Collection[str] = ()) -> bool:
    """Return whether `run` would find nothing to do in the current folder."""
    memory = _Memory(_FOLDER / "run.json")
    return all(memory.is_up_to_date(step) for step in steps(params, without=without))


def steps(params: Params, *, without: Collection[str] = ()) -> list[Step]:
    """Return the pipeline's steps in order, a step for each variant, but for the stages that are left out."""
    content = params.model_dump(mode="json")
    found = []
    for stage in pipeline.stages().values():
        if stage.name in without:
            continue
        for variant in content["rebalance"] if stage.for_each_variant else [None]:
            fillings = {"${prepare.source.root}": params.prepare.source.root, "${key}": variant or ""}
            method = params.rebalance[variant].method if variant else None
            deps, outs, names = (
                tuple(_filled(text, fillings) for text in texts) for texts in (stage.deps, stage.outs, stage.params)
            )
            found.append(
                Step(
                    name=f"{stage.name} {variant}" if variant else stage.name,
                    command=(stage.name, variant) if variant else (stage.name,),
                    code=pipeline.code_digest(stage.name, method=method),
                    params={name: _value(content, name) for name in names},
                    deps=deps,
                    outs=outs,
                )
            )
    return found


def _filled(text: str, fillings: dict[str, str]) -> str:
    for place, value in fillings.items():
        text = text.replace(place, value)
    return text


def _value(content: Any, path: str) -> Any:
    for key in path.split("."):
        content = content[key]
    return content


def _finish(step: Step, params_file: Path) -> int:
    """Run a step to its end and return its exit code; Ctrl-C ends it as if it ran alone."""
    options = [*console.verbosity_options(), "--params", str(params_file)]
    arguments = [sys.executable, "-P", "-m", "ltrec", *options, *step.command]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), STARTED_BY_RUN: "1"}
    with subprocess.Popen(arguments, env=environment) as process:  # noqa: S603 - our own module
        try:
            return process.wait()
        except BaseException as end:
            # A terminal's Ctrl-C reaches the stage, too.
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_GRACE if isinstance(end, KeyboardInterrupt) else 0)
            process.terminate()
            raise


class _Memory:
    """What each step was last run with, and what it wrote; and the digests of files that have not changed since."""

    def __init__(self, file: Path) -> None:
        self._file = file
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            self._steps, self._known = dict(content["steps"]), dict(content["files"])
        except (OSError, ValueError, KeyError, TypeError):  # absent, or of another version: everything runs
            self._steps, self._known = {}, {}

    def is_up_to_date(self, step: Step) -> bool:
        """Return whether a step was run with what there is now, and what it wrote is still there."""
        return self._steps.get(step.name) == self._state(step)

    def remember(self, step: Step) -> None:
        """Keep what a step was run with, and what it wrote."""
        self._steps[step.name] = self._state(step)
        self._file.parent.mkdir(parents=True, exist_ok=True)
        artifacts.write_json(self._file, {"steps": self._steps, "files": self._known})

    def _state(self, step: Step) -> dict[str, Any]:
        return {
            "code": step.code,
            "params": step.params,
            "deps": {dep: self._digest(dep) for dep in step.deps},
            "outs": {out: self._digest(out) for out in step.outs},
        }

    def _digest(self, name: str) -> str | None:
        """Return a digest of a file or of a folder's files; None where there is nothing.

        The photographs, of which there may be many, go by size and time of change.
        """
        path = Path(name)
        if not path.exists():
            return None
        by_content = name.startswith("artifacts/")
        return artifacts.digest(
            [
                (file.relative_to(path).as_posix(), self._of_file(file) if by_content else _looks(file))
                for file in pipeline.files_below(path)
            ]
        )

    def _of_file(self, file: Path) -> str:
        key, looks = str(file), _looks(file)
        known = self._known.get(key)
        if known is None or known[0] != looks:
            self._known[key] = known = [looks, artifacts.digest(file)]
        return str(known[1])


def _looks(file: Path) -> str:
    status = file.stat()
    return f"{status.st_size} {status.st_mtime_ns}"
