"""`ltrec seeds`: which seeds, where they run, and what of them runs again; the stages write made-up figures."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ltrec import project, running, seeds
from ltrec.config import params
from ltrec.errors import UserError
from ltrec.seeds import recording
from tests.commands import ltrec

if TYPE_CHECKING:
    from ltrec.config.params import Params
    from ltrec.running import Step

TEXT = """\
prepare: {{source: {{kind: folder, root: {root}}}}}
represent: {{backbone: {{name: cifar_resnet8}}, epochs: {epochs}}}
rebalance: {{joint: {{method: joint}}, slow: {{method: crt, epochs: {head}}}}}
tracking: {{enabled: false}}
"""
ALL = ["prepare", "represent", "featurize", "rebalance joint", "rebalance slow", "evaluate"]
FIGURES = ("many", "medium", "few", "all", "top5", "balanced", "macro_f1")


class Stages:
    """Stands in for the stages' processes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ran: list[tuple[int, str]] = []
        self.stops: dict[tuple[int, str], BaseException | int] = {}
        self.roots: set[str] = set()
        monkeypatch.setattr(running, "_finish", self._finish)

    def _finish(self, step: Step, params_file: Path) -> int:
        own = params.load(params_file)
        assert Path.cwd().name == str(own.seed)
        assert project.root() == Path.cwd()
        assert not own.tracking.enabled
        assert (Path(own.prepare.source.root) / "heron/0.jpg").is_file()
        self.ran.append((own.seed, step.name))
        end = self.stops.get((own.seed, step.name), 0)
        if isinstance(end, BaseException):
            raise end
        if end:
            return end
        for out in step.outs:
            Path(out).parent.mkdir(parents=True, exist_ok=True)
            read = [Path(dep).read_text() if Path(dep).is_file() else dep for dep in step.deps]
            Path(out).write_text(self._content(Path(out).name, own.seed, repr((step.params, step.code, read))))
        return 0

    def _content(self, name: str, seed: int, otherwise: str) -> str:
        figures = {
            variant: dict.fromkeys(FIGURES, value + seed / 100) for variant, value in (("joint", 0.5), ("slow", 0.6))
        }
        if name == "metrics.json":
            return json.dumps(figures | {"champion": "slow", "selected_on": "val", "read": otherwise})
        return otherwise

    def of(self, wanted: list[int], *, code: int = 0, **changed: Any) -> list[tuple[int, str]]:
        """Return what ran of which seed."""
        self.ran.clear()
        assert seeds.run(settings(**changed), wanted) == code
        return list(self.ran)


def settings(*, epochs: int = 1, head: int = 1, root: str = "data") -> Params:
    return params.parse(TEXT.format(epochs=epochs, head=head, root=root))


def whole(*wanted: int) -> list[tuple[int, str]]:
    return [(seed, name) for seed in wanted for name in ALL]


@pytest.fixture
def stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stages:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    Path("data/heron").mkdir(parents=True)
    Path("data/heron/0.jpg").write_text("a heron")
    Path("artifacts/evaluate").mkdir(parents=True)
    Path("artifacts/evaluate/metrics.json").write_text("the project's own")
    Path("params.yaml").write_text(TEXT.format(epochs=1, head=1, root="data"))
    return Stages(monkeypatch)


def test_each_seed_runs_once_and_apart(stages: Stages, capfd: pytest.CaptureFixture[str]) -> None:
    assert stages.of([0, 3]) == whole(0, 3)
    assert Path("artifacts/evaluate/metrics.json").read_text() == "the project's own"
    first = Path("artifacts/seeds/table.json").read_bytes()
    assert json.loads(first)["figures"]["slow"]["all"]["values"] == [0.6, 0.63]
    assert "| slow | 61.5 ±19.1 |" in Path("artifacts/seeds/table.md").read_text(encoding="utf-8")
    capfd.readouterr()
    assert stages.of([0, 3]) == []
    assert Path("artifacts/seeds/table.json").read_bytes() == first
    assert capfd.readouterr().err.count("is up to date") == 2
    assert stages.of([0, 1, 3]) == whole(1), "another seed is one training more"
    assert not list(Path.cwd().glob("*.db"))


def test_what_changed_runs_again(stages: Stages) -> None:
    stages.of([0, 1])
    assert stages.of([0, 1], head=2) == [(seed, name) for seed in (0, 1) for name in ("rebalance slow", "evaluate")], (
        "the representation is kept"
    )
    assert stages.of([0, 1], head=2, epochs=2) == [(seed, name) for seed in (0, 1) for name in ALL[1:]]
    Path("data/heron/1.jpg").write_text("another")
    assert stages.of([0, 1], head=2, epochs=2)[0] == (0, "prepare")


def test_other_code_runs_again(stages: Stages, monkeypatch: pytest.MonkeyPatch) -> None:
    stages.of([0, 1])
    digest = running.pipeline.code_digest
    monkeypatch.setattr(
        running.pipeline,
        "code_digest",
        lambda *names, **options: "newer" if names == ("featurize",) else digest(*names, **options),
    )
    assert stages.of([0, 1]) == [(seed, name) for seed in (0, 1) for name in ALL[2:]]


@pytest.mark.parametrize("end", [KeyboardInterrupt(), 2])
def test_an_end_in_the_middle_costs_the_stage_that_ran(stages: Stages, end: BaseException | int) -> None:
    here = Path.cwd()
    stages.stops[1, "featurize"] = end
    if isinstance(end, int):
        stages.of([0, 1, 2], code=end)
    else:
        with pytest.raises(KeyboardInterrupt):
            stages.of([0, 1, 2])
    assert stages.ran[-1] == (1, "featurize")
    assert Path.cwd() == here
    assert not Path("artifacts/seeds").exists()
    stages.stops.clear()
    assert stages.of([0, 1, 2]) == whole(0, 1, 2)[len(ALL) + 2 :]


def test_a_project_that_was_moved_trains_nothing_again(stages: Stages, tmp_path: Path) -> None:
    stages.of([0, 1])
    moved = tmp_path.with_name(f"{tmp_path.name} moved")
    tmp_path.rename(moved)
    os.chdir(moved)
    assert stages.of([0, 1]) == []
    moved.rename(tmp_path)


def test_started_by_dvc_the_stages_stay_in_their_folder(stages: Stages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", str(Path.cwd()))
    assert stages.of([0, 1]) == whole(0, 1)
    assert project.root() == Path.cwd()


def test_each_seed_is_told_once_it_is_finished(stages: Stages, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, int]] = []
    monkeypatch.setattr(recording, "tell_of_seed", lambda *_: told.append(("seed", len(stages.ran))))
    monkeypatch.setattr(recording, "tell_of_all", lambda *_: told.append(("all", len(stages.ran))))
    stages.of([0, 1])
    assert told == [("seed", len(ALL)), ("seed", 2 * len(ALL)), ("all", 2 * len(ALL))]


def test_two_at_once_are_refused(stages: Stages) -> None:
    with project.lock(Path(".ltrec/seeds/lock")), pytest.raises(UserError, match="which works on the same thing"):
        stages.of([0, 1])


def test_which_seeds() -> None:
    assert seeds.chosen(7, 3, None) == [7, 8, 9]
    assert seeds.chosen(7, None, "3, 0,12") == [0, 3, 12]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ("`ltrec seeds 5`", "`--seeds 0,3,7`")),
        (["5", "--seeds", "0,1"], ("`ltrec seeds 5`",)),
        (["1"], ("allowed: 2 … 1000 seeds", "got 1")),
        (["0"], ("got 0",)),
        (["2000000000"], ("got 2000000000",)),
        (["-3"], ("-3",)),
        (["two"], ("valid integer", "`ltrec seeds --help`")),
        (["--seeds", "4"], ("at least 2 seeds, got 1",)),
        (["--seeds", "0,3,0"], ("named twice: 0",)),
        (["--seeds", "0,-3"], ("--seeds: whole numbers from 0 on", "'-3'")),
        (["--seeds", "0,,1"], ("--seeds: ", "''")),
        (["--seeds", "0,4294967296"], ("0 … 4294967295", "got 4294967296")),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], words: tuple[str, ...], stages: Stages) -> None:
    done = ltrec("seeds", *arguments, cwd=Path.cwd())
    assert (done.stdout, done.returncode, done.stderr.count("\n")) == ("", 2, 1)
    assert [word for word in words if word not in done.stderr] == []
    assert not stages.ran


def test_no_project_and_wrong_params_are_said_before_anything_runs(stages: Stages, tmp_path: Path) -> None:
    empty = tmp_path / "data" / "heron" / "none"
    empty.mkdir()
    Path("params.yaml").unlink()
    assert "params.yaml: no such file" in ltrec("seeds", "2", cwd=empty).stderr
    Path("params.yaml").write_text("seed: -1\n")
    done = ltrec("seeds", "2", cwd=tmp_path)
    assert done.returncode == 2
    assert "params.yaml:1:7: seed: " in done.stderr
    assert not stages.ran
