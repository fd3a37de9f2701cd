"""`ltrec run`: what runs, what stays, and how it ends."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest

from ltrec import pipeline, running
from ltrec.config import params
from ltrec.errors import UserError

if TYPE_CHECKING:
    from ltrec.config.params import Params
    from ltrec.running import Step

TEXT = """\
prepare: {{source: {{kind: folder, root: data}}}}
represent: {{backbone: {{name: cifar_resnet8}}, epochs: {epochs}}}
rebalance: {{joint: {{method: joint}}, slow: {{method: crt, epochs: {head}}}}}
"""
ALL = ["prepare", "represent", "featurize", "rebalance joint", "rebalance slow", "evaluate", "export"]


class Runs:
    """Stands in for the stages' processes: each writes its outputs from what it reads."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names: list[str] = []
        self.fails: str | None = None
        self.current = (1, 1)
        monkeypatch.setattr(running, "_finish", self._finish)
        monkeypatch.setattr(running, "load", lambda _: settings(*self.current))

    def _finish(self, step: Step, _params_file: Path) -> int:
        self.names.append(step.name)
        if step.name == self.fails:
            return 2
        read = [Path(dep).read_text() if Path(dep).is_file() else dep for dep in step.deps]
        for out in step.outs:
            Path(out).parent.mkdir(parents=True, exist_ok=True)
            Path(out).write_text(repr((out, step.params, step.code, read)))
        return 0

    def of(self, epochs: int = 1, head: int = 1, *, force: bool = False) -> tuple[int, list[str]]:
        """Return the exit code of `ltrec run`, and the stages that ran."""
        self.names.clear()
        self.current = (epochs, head)
        return running.run(settings(epochs, head), Path("params.yaml"), force=force), list(self.names)


def settings(epochs: int = 1, head: int = 1) -> Params:
    return params.parse(TEXT.format(epochs=epochs, head=head))


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runs:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    Path("data/heron").mkdir(parents=True)
    Path("data/heron/0.jpg").write_text("a heron")
    Path("params.yaml").touch()
    return Runs(monkeypatch)


def test_the_steps_are_dvcs_in_its_order() -> None:
    steps = running.steps(settings())
    assert [step.name for step in steps] == ALL
    by_name = {step.name: step for step in steps}
    assert by_name["prepare"].deps == ("data",)
    slow = by_name["rebalance slow"]
    assert slow.command == ("rebalance", "slow")
    assert "artifacts/rebalance/slow/head.safetensors" in slow.outs
    assert slow.params["rebalance.slow"]["epochs"] == 1
    assert slow.code == pipeline.code_digest("rebalance", method="crt")
    assert not [name for step in steps for name in (*step.deps, *step.outs) if "$" in name or name.startswith("ltrec")]


def test_what_is_up_to_date_does_not_run_again(runs: Runs, capfd: pytest.CaptureFixture[str]) -> None:
    assert runs.of() == (0, ALL)
    assert runs.of() == (0, [])
    assert capfd.readouterr().err.count("is up to date") == len(ALL)
    assert runs.of(head=2) == (0, ["rebalance slow", "evaluate", "export"])
    assert runs.of(epochs=2, head=2) == (0, ALL[1:])
    assert runs.of(epochs=2, head=2, force=True) == (0, ALL)


def test_other_images_other_code_or_a_lost_output_run_it_again(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    runs.of()
    Path("data/heron/1.jpg").write_text("another")
    assert runs.of() == (0, ["prepare"]), "the lists are as they were"
    Path("artifacts/represent/model.safetensors").unlink()
    assert runs.of() == (0, ["represent"])
    Path("artifacts/evaluate/table.md").write_text("by hand")
    assert runs.of() == (0, ["evaluate"])
    digest = pipeline.code_digest

    def upgraded(*names: str, **options: Any) -> str:
        return "newer" if names == ("featurize",) else digest(*names, **options)

    monkeypatch.setattr(pipeline, "code_digest", upgraded)
    assert runs.of() == (0, ALL[2:])


def test_the_first_that_fails_is_the_last(runs: Runs) -> None:
    runs.fails = "featurize"
    assert runs.of() == (2, ALL[:3])
    runs.fails = None
    assert runs.of() == (0, ALL[2:])


@pytest.mark.parametrize("content", ["", "[]", '{"steps": 3}', "{"])
def test_a_damaged_memory_runs_everything(content: str, runs: Runs) -> None:
    runs.of()
    Path(".ltrec/run.json").write_text(content)
    assert runs.of() == (0, ALL)


class _Stage:
    """A stage's process that ends when it is told to."""

    def __init__(self, ends_by_itself: bool) -> None:
        self.ends_by_itself = ends_by_itself
        self.waits, self.told = 0, False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def wait(self, timeout: float | None = None) -> int:
        self.waits += 1
        if self.waits == 1:
            raise KeyboardInterrupt
        if not self.ends_by_itself:
            raise subprocess.TimeoutExpired("stage", timeout or 0)
        return 130

    def terminate(self) -> None:
        self.told = True


@pytest.mark.parametrize("ends_by_itself", [True, False])
def test_ctrl_c_waits_for_the_stage_and_then_ends_it(ends_by_itself: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = _Stage(ends_by_itself)
    monkeypatch.setattr(running.subprocess, "Popen", lambda *_, **__: stage)
    with pytest.raises(KeyboardInterrupt):
        running._finish(running.steps(settings())[0], Path("params.yaml"))
    assert stage.waits == 2
    assert stage.told


def test_parameters_that_change_while_a_step_runs_are_not_taken_for_its_own(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "load", lambda _: settings(epochs=3))
    with pytest.raises(UserError, match=r"params\.yaml: has changed while represent ran; run it again"):
        runs.of(epochs=1)
    monkeypatch.setattr(running, "load", lambda _: settings(epochs=1))
    assert runs.of(epochs=1) == (0, ALL[1:])


def test_images_behind_links_are_seen(runs: Runs, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    Path("data/owl").symlink_to(elsewhere)
    Path("data/owl/round").symlink_to(tmp_path / "data")
    runs.of()
    (elsewhere / "0.jpg").write_text("an owl")
    assert runs.of() == (0, ["prepare"])
