"""Disks that fill at any byte: a line, exit 2, whole files; and once there is room, the same bits."""

from __future__ import annotations

import math
import os
import random
import shutil
import subprocess
from typing import TYPE_CHECKING, NamedTuple

import psutil
import pytest

from tests.campaign.small_pipeline import (
    STAGES,
    held_by_mlflow,
    lost_files,
    outputs,
    processes,
    small_project,
    temporaries,
    tracebacks,
)
from tests.commands import ltrec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.campaign.conftest import Tally
    from tests.pipeline.checkout import Project

FILLS = int(os.environ.get("LTREC_CAMPAIGN_FILLS", "70"))
MEGABYTE = 1 << 20

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(1800)]


class Disk:
    """A small file system of its own, in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"

    def fill(self, room: int) -> None:
        """Leave so many bytes free."""
        self.empty()
        taken = self.free() - room
        with self._filler.open("wb") as filler:
            os.posix_fallocate(filler.fileno(), 0, taken)

    def empty(self) -> None:
        self._filler.unlink(missing_ok=True)

    def free(self) -> int:
        status = os.statvfs(self.folder)
        return status.f_bavail * status.f_frsize


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[int], Disk]]:
    """Make disks of so many megabytes; the test is skipped where this user may not mount one."""
    mounted: list[Path] = []

    def mount(megabytes: int) -> Disk:
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "none", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"needs the right to mount a tmpfs: {done.stderr.strip()}")
        mounted.append(folder)
        return Disk(folder)

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)  # a broken-off test may leave a process in it


class Runs(NamedTuple):
    """Finished pipelines of two seeds: what a stage overwrites, and what it then writes."""

    earlier: Path
    later: Path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folders = []
    for seed in (1, 0):
        project = small_project(tmp_path_factory.mktemp(f"seed{seed}") / "project")
        project.set({"seed": seed, "tracking.enabled": False, "represent.workers": 0, "featurize.workers": 0})
        for stage in STAGES:
            assert ltrec(*stage, cwd=project.folder).returncode == 0
        folders.append(project.folder)
    return Runs(*folders)


@pytest.mark.usefixtures("restored_torch")
@pytest.mark.parametrize("stage", STAGES, ids=" ".join)
def test_a_stage_leaves_whole_files(
    stage: list[str], finished: Runs, disk: Callable[[int], Disk], tally: Tally, campaign_seed: int
) -> None:
    """What the stage overwrites is of another seed: each file is that or the new one, and never half of one."""
    seed, before, after = f"{campaign_seed}.{' '.join(stage)}", outputs(finished.earlier), outputs(finished.later)
    tally.seeds.append(seed)
    rng, small = random.Random(seed), disk(24)  # noqa: S311 - how much room there is
    for number in range(math.ceil(FILLS / len(STAGES))):
        project = arranged(small.folder / str(number), stage, finished)
        small.fill(room := 0 if number == 0 else int(4096 * 2 ** rng.uniform(0, 9)))
        tally.add("full disks")
        refused = attempt(stage, project, room, tally)
        for path, digest in outputs(project).items():
            if digest not in (before.get(path), after.get(path)):
                tally.fault("different", f"with {room} bytes, {path} is neither the earlier nor the later one")
        for left in temporaries(project):
            if "/resume/" not in left:
                tally.fault("temporaries", f"with {room} bytes, {left}")
        small.empty()
        if refused:
            tally.add("refused")
            assert ltrec(*stage, cwd=project).returncode == 0
        written = {path for path in after if path.startswith(f"artifacts/{'/'.join(stage)}")}
        tally.add("done")
        same = {path: outputs(project)[path] for path in written} == {path: after[path] for path in written}
        tally.add("same", same)
        if not same:
            tally.fault("different", f"with {room} bytes, {stage} ends otherwise when there is room again")
        shutil.rmtree(project)
    assert not tally.faults, "\n".join(tally.faults)


def arranged(folder: Path, stage: list[str], finished: Runs) -> Path:
    """Return a project whose stages before this one are the later pipeline's, this one and the rest the earlier's."""
    folder.mkdir()
    for name in ("params.yaml", "images"):
        source = finished.later / name
        (shutil.copytree if source.is_dir() else shutil.copy2)(source, folder / name)
    for path in outputs(finished.later):
        writers = [" ".join(each) for each in STAGES]
        writer = next(each for each in writers if path.startswith(f"artifacts/{each.replace(' ', '/')}/"))
        ready = writers.index(writer) < writers.index(" ".join(stage))
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2((finished.later if ready else finished.earlier) / path, folder / path)
    return folder


def attempt(stage: list[str], project: Path, room: int, tally: Tally) -> bool:
    """Run a stage, and return whether it was refused for want of room."""
    try:
        done = ltrec(*stage, cwd=project)
    except Exception as error:  # noqa: BLE001 - what `ltrec` would show as a traceback
        tally.fault("tracebacks", f"with {room} bytes, {stage} raises {error!r}")
        return True
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    if done.returncode and (done.returncode != 2 or len(errors) != 1 or "No space left" not in errors[0]):
        tally.fault("unclear", f"with {room} bytes, {stage} exits with {done.returncode}: {done.stderr}")
    return done.returncode != 0


@pytest.mark.parametrize("share", [0.3, 0.8])
def test_a_pipeline_goes_on_when_there_is_room(
    share: float, tmp_path: Path, disk: Callable[[int], Disk], tally: Tally
) -> None:
    """With DVC's cache and MLflow's store on the disk that fills."""
    start = small_project(tmp_path / "start")
    small = disk(200)
    whole = start.copy(small.folder / "whole")
    before = small.free()
    code, said = repro(whole)
    assert not code, said
    needed = before - small.free()
    wanted, held = outputs(whole.folder), held_by_mlflow(whole.folder)
    shutil.rmtree(whole.folder)

    project = start.copy(small.folder / "project")
    small.fill(int(share * needed))
    tally.add("full disks")
    code, said = repro(project)
    tally.add("refused", code != 0)
    small.empty()
    code, more = repro(project)
    if code and (lost := lost_files(project.folder)):
        tally.add("files of DVC's removed", len(lost))
        for file in lost:
            file.unlink()
        code, more = repro(project)
    said += more + project.run("ltrec", "sync")
    if code:
        tally.fault("stuck", "it does not go on when there is room")
    tally.add("done", code == 0)
    found = outputs(project.folder)
    tally.add("same", found == wanted)
    for path in {path for path, _ in found.items() ^ wanted.items()}:
        tally.fault("different", path)
    for line in tracebacks(said):
        tally.fault("tracebacks", line)
    now = held_by_mlflow(project.folder)
    for what, facts in {"lost": held - now, "doubled": now - held}.items():
        for fact, number in facts.items():
            tally.fault(what, f"{fact} × {number}")
    assert not tally.faults, "\n".join([*tally.faults, said])


def repro(project: Project) -> tuple[int, str]:
    """Run the pipeline; return its exit code and what was said, once no process of it is left."""
    command = ["dvc", "repro"]
    done = subprocess.run(
        command, cwd=project.folder, env=project.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        check=False, timeout=1200,
    )  # fmt: skip
    psutil.wait_procs(processes(project.folder), timeout=30)
    return done.returncode, done.stdout
