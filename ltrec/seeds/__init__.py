"""`ltrec seeds`: the pipeline for several seeds, and one table of all variants over them.

Each seed has a folder of its own in `.ltrec/seeds/`, in which the stages run as `ltrec run` runs them: what is up to
date there does not run again, and the project's own artifacts stay as they are. DVC's queue of experiments is not used:
it takes longer, needs a commit, and ends with Ctrl-C in a worker that goes on (docs/seeds.md).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from ltrec import artifacts, console, project, running
from ltrec.artifacts import Layout
from ltrec.errors import UserError, some
from ltrec.seeds import recording
from ltrec.seeds.folder import SeedFolder
from ltrec.seeds.table import SeedTable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ltrec.config.params import Params

_SEEDS = 2**32  # as many as params.yaml allows
_MOST = 1000
# Their table needs no ONNX files, and none of them is the project's champion.
_WITHOUT = ("export",)


def chosen(first: int, count: int | None, listed: str | None) -> list[int]:
    """Return the seeds that a command line asks for, ascending.

    Args:
        first: The seed of params.yaml.
        count: How many, from the first on.
        listed: The seeds themselves, separated by commas.

    Raises:
        UserError: It asks for neither or both, for fewer than two, for one twice, or for what is no seed.
    """
    if (count is None) == (listed is None):
        raise UserError("say how many, such as `ltrec seeds 5`, or which, such as `--seeds 0,3,7`", where="seeds")
    if count is not None and not 2 <= count <= _MOST:
        raise UserError(f"allowed: 2 … {_MOST} seeds, since one has no interval, got {count}", where="seeds")
    seeds = list(range(first, first + count)) if count is not None else _parsed(listed or "")
    if len(seeds) < 2:
        raise UserError(f"an interval needs at least 2 seeds, got {len(seeds)}", where="seeds")
    if twice := sorted({seed for seed in seeds if seeds.count(seed) > 1}):
        raise UserError(f"named twice: {some(twice)}", where="seeds")
    if seeds[-1] >= _SEEDS:
        raise UserError(f"allowed: 0 … {_SEEDS - 1}, got {seeds[-1]}", where="seeds")
    return sorted(seeds)


def run(params: Params, seeds: Sequence[int]) -> int:
    """Run what is not up to date of each seed, show the table, and return 0, or the exit code of a stage that failed.

    Args:
        params: The project's parameters; each seed takes the place of theirs.
        seeds: Two or more, ascending.

    Raises:
        UserError: Another `ltrec seeds` is at work here.
    """
    root = Path(".ltrec") / "seeds"
    folders = [SeedFolder(root.resolve() / str(seed), params.model_copy(update={"seed": seed})) for seed in seeds]
    with project.lock(root / "lock", patience=0):
        evaluations = []
        for number, folder in enumerate(folders, start=1):
            if code := _finish(folder, f"seed {folder.seed} ({number} of {len(folders)})"):
                return code
            evaluations.append(folder.evaluation())
            recording.tell_of_seed(params, folders[0], folder)
        table = SeedTable(seeds, evaluations, list(params.rebalance), _reference(params))
        output = Layout().root / "seeds"
        artifacts.write_json(output / "table.json", table.as_json())
        artifacts.write_text(output / "table.md", table.markdown())
        recording.tell_of_all(params, folders[0], table, [output / "table.json", output / "table.md"])
        console.show(table)
        console.say(f"seeds: {len(seeds)} seeds → {output}")
    return 0


def _finish(folder: SeedFolder, what: str) -> int:
    with folder.entered() as (params, params_file):
        if running.is_up_to_date(params, without=_WITHOUT):
            console.say(f"seeds: {what} is up to date")
            return 0
        console.say(f"seeds: {what}")
        return running.run(params, params_file, without=_WITHOUT)


def _reference(params: Params) -> str | None:
    """Return the variant that the others are compared with; None where none is joint."""
    return next((name for name, variant in params.rebalance.items() if variant.method == "joint"), None)


def _parsed(listed: str) -> list[int]:
    texts = [text.strip() for text in listed.split(",")]
    if wrong := [text for text in texts if not re.fullmatch(r"\d{1,10}", text, re.ASCII)]:
        raise UserError(
            f"whole numbers from 0 on, separated by commas, got {some([repr(text) for text in wrong])}",
            where="--seeds",
        )
    return sorted(map(int, texts))
