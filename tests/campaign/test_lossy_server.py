"""The records of a pipeline, sent to a server that loses and fails what is asked of it: MLflow has them all, once.

`LTREC_CAMPAIGN_SERVERS` says through how many plans of faults they go, `LTREC_CAMPAIGN_SEED` which is the first.
"""

from __future__ import annotations

import json
import os
import shutil
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ltrec import artifacts
from ltrec.stages import recording
from tests.campaign.conftest import SEED
from tests.campaign.facts import Facts, facts
from tests.campaign.lossy_server import LossyServer, SeededPlan
from tests.tracking.conftest import Project, SenderHere, SilentSender
from tests.tracking.test_model import write_model
from tests.tracking.test_sending import Server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.campaign.conftest import Tally

SERVERS = int(os.environ.get("LTREC_CAMPAIGN_SERVERS") or 30)
TRIES = 80
RECORDED = Path(__file__).parents[2] / "artifacts"

pytestmark = [pytest.mark.campaign, pytest.mark.filterwarnings("default")]  # MLflow's own


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "server").mkdir()
    server = Server(Project(tmp_path / "server"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project with the records of the digits' pipeline: what the stages told, from the files that Git keeps."""
    for name in ("MLFLOW_EXPERIMENT_NAME", "DVC_ROOT", "DVC_EXP_NAME"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "project").mkdir()
    project = Project(tmp_path / "project")
    monkeypatch.chdir(project.folder)
    monkeypatch.setattr("ltrec.tracking.sender", lambda _patience: SilentSender())
    params = project.params()
    figures = json.loads((RECORDED / "evaluate/metrics.json").read_text(encoding="utf-8"))
    with recording.stage_run(params, "represent") as run:
        run.params({"represent": params.represent.model_dump(mode="json"), "seed": params.seed})
        run.history(artifacts.read_csv(RECORDED / "represent/history.csv"), "represent")
        run.file(RECORDED / "represent/history.csv")
    for variant in ("joint", "crt"):
        with recording.stage_run(params, "rebalance", variant=variant) as run:
            run.params({"rebalance": params.rebalance[variant].model_dump(mode="json"), "seed": params.seed})
            run.metrics({name: value for name, value in figures[variant].items() if isinstance(value, float)})
    with recording.stage_run(params, "evaluate") as run:
        run.params({"evaluate": params.evaluate.model_dump(mode="json")})
        run.tags({"champion": figures["champion"]})
        run.metrics({name: value for name, value in figures["crt"].items() if isinstance(value, float)})
        run.file(RECORDED / "evaluate/table.md")
    write_model(project.folder / "model.onnx", 0.01)
    with recording.stage_run(params, "export") as run:
        run.params({"export": params.export.model_dump(mode="json")})
        run.model(project.folder / "model.onnx", {"variant": "crt"})
    shutil.move(project.folder / ".ltrec/tracking", project.folder / "template")
    return project


def send(project: Project, lossy: LossyServer, name: str) -> bool:
    """Send the records as an experiment and a model of this name, as `ltrec sync` again and again would."""
    tracking = project.folder / ".ltrec/tracking"
    shutil.rmtree(tracking, ignore_errors=True)
    shutil.copytree(project.folder / "template", tracking)
    for about in sorted(tracking.glob("*/*/about.json")):
        said = json.loads(about.read_text(encoding="utf-8"))
        times = about.stat()
        about.write_text(json.dumps(said | {"experiment": name, "model": name}), encoding="utf-8")
        os.utime(about, ns=(times.st_atime_ns, times.st_mtime_ns))
    for _ in range(TRIES):
        SenderHere()._flush()
        if not project.records():
            return True
        lossy.settle()  # to start `ltrec sync` takes longer than what is late
    return False


def verdict(sent: bool, said: str, found: Facts, wanted: Facts) -> str:
    if not sent:
        return "stuck"
    if "Traceback" in said:
        return "tracebacks"
    if found == wanted:
        return "same"
    lacking, beyond = wanted - found, found - wanted
    return "lost" if not beyond else "doubled" if not lacking else "different"


def test_every_record_arrives_once(
    project: Project,
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tally: Tally,
) -> None:
    for name, value in {"MAX_RETRIES": "1", "BACKOFF_FACTOR": "0", "BACKOFF_JITTER": "0", "TIMEOUT": "30"}.items():
        monkeypatch.setenv(f"MLFLOW_HTTP_REQUEST_{name}", value)
    with closing(LossyServer(server.url)) as lossy:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", lossy.url)
        assert send(project, lossy, "undisturbed")
        wanted = facts(server.project.folder, "undisturbed")
        for seed in range(SEED, SEED + SERVERS):
            tally.seeds.append(str(seed))
            lossy.follow(SeededPlan(seed))
            sent = send(project, lossy, f"seed {seed}")
            tally.add("faults", lossy.faults.total())
            lossy.follow(None)
            said, found = "".join(capfd.readouterr()), facts(server.project.folder, f"seed {seed}")
            tally.add("done")
            if (what := verdict(sent, said, found, wanted)) == "same":
                tally.add(what)
            else:
                tally.fault(what, f"seed {seed}: lacks {wanted - found}, beyond {found - wanted}; {said}")
    assert tally.counts["done"] == SERVERS
    assert not tally.faults, "\n".join(tally.faults)
