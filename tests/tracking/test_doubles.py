"""One run, one model and one version, whatever becomes of the calls that create them."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from ltrec.stages import recording
from tests.campaign.lossy_server import CREATING, Fault, LossyServer
from tests.tracking.conftest import Project, SenderHere, SilentSender
from tests.tracking.test_model import write_model
from tests.tracking.test_sending import Server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]  # MLflow's own

EXECUTED = [Fault.LOST_ANSWER, Fault.LATE, Fault.TRUNCATED, Fault.GARBLED, Fault.EXECUTED_502]
STAGES = """
with recording.stage_run(params, "represent") as run:
    run.params({"lr": 0.1})
    run.metrics({"loss": 0.5}, step=1)
with recording.stage_run(params, "export") as run:
    run.model(Path("model.onnx"))
"""


@pytest.fixture(scope="module")
def server(migrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests of this file: each has an experiment and a model of its own."""
    project = Project(tmp_path_factory.mktemp("server"))
    shutil.copyfile(migrated, project.folder / "mlflow.db")
    server = Server(project)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def lossy(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[LossyServer]:
    with closing(LossyServer(server.url)) as proxy:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.url)
        for name, value in {"MAX_RETRIES": "3", "BACKOFF_FACTOR": "0", "BACKOFF_JITTER": "0"}.items():
            monkeypatch.setenv(f"MLFLOW_HTTP_REQUEST_{name}", value)
        yield proxy


def own_names(project: Project, name: str) -> None:
    text = (project.folder / "params.yaml").read_text(encoding="utf-8")
    text = text.replace("tracking: {", f"tracking: {{experiment: {name}, model: {name}, ")
    (project.folder / "params.yaml").write_text(text, encoding="utf-8")
    write_model(project.folder / "model.onnx", 0.01)


def send(lossy: LossyServer, at_most: int = 20) -> None:
    """Send as the stages and `ltrec sync` do, again and again, as new processes would."""
    for _ in range(at_most):
        if SenderHere()._flush() is None:
            return
        lossy.settle()
    pytest.fail("not all of it is sent")


class Ledger:
    """What a server's database says of an experiment."""

    def __init__(self, server: Server, name: str) -> None:
        self._file, self._name = server.project.folder / "mlflow.db", name

    def ask(self, query: str) -> list[Any]:
        """Return the rows; `{name}` in the query is the experiment's name and the model's."""
        with closing(sqlite3.connect(self._file)) as store:
            return store.execute(query.format(name=f"'{self._name}'")).fetchall()

    def runs(self) -> list[Any]:
        experiments = "JOIN experiments e USING (experiment_id)"
        rows = self.ask(
            f"SELECT r.name, status FROM runs r {experiments} WHERE e.name = {{name}} AND r.lifecycle_stage = 'active'"  # noqa: S608
        )
        return sorted((name.split()[0], status) for name, status in rows)

    def models(self) -> list[Any]:
        """Return (status, name of the experiment) of the run's models; 2 is READY."""
        return self.ask(
            "SELECT m.status, e.name FROM logged_models m JOIN experiments e USING (experiment_id)"
            " WHERE m.lifecycle_stage = 'active' AND e.name = {name}"
        )

    def versions(self) -> list[Any]:
        return self.ask("SELECT version FROM model_versions WHERE name = {name} AND current_stage = 'None'")

    def outputs(self) -> list[Any]:
        return self.ask(
            "SELECT i.destination_id FROM inputs i JOIN runs r ON i.source_id = r.run_uuid JOIN experiments e"
            " USING (experiment_id) WHERE e.name = {name} AND i.source_type = 'RUN_OUTPUT'"
        )


def assert_one_of_each(server: Server, name: str) -> None:
    ledger = Ledger(server, name)
    assert ledger.runs() == [("pipeline", "FINISHED"), ("represent", "FINISHED")]
    assert ledger.models() == [(2, name)]
    assert ledger.versions() == [(1,)]
    assert len(ledger.outputs()) == 1


@pytest.mark.parametrize("fault", EXECUTED)
def test_a_creating_call_that_was_executed_and_failed(
    fault: Fault, empty_project: Project, server: Server, lossy: LossyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"once-{fault.name}"
    own_names(empty_project, name)
    record_here(empty_project, monkeypatch)
    struck: list[str] = []

    def plan(_method: str, path: str, number: int) -> Fault | None:
        if path.endswith(CREATING) and number == 1:
            struck.append(path)
            return fault
        return None

    lossy.follow(plan)
    send(lossy)
    assert len(struck) == len(CREATING)
    assert_one_of_each(server, name)


def test_a_creating_call_is_not_repeated_blindly(
    empty_project: Project, server: Server, lossy: LossyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_names(empty_project, "blindly")
    record_here(empty_project, monkeypatch)
    asked: list[str] = []

    def plan(_method: str, path: str, _number: int) -> Fault | None:
        asked.append(path)
        return Fault.REFUSED_500 if path.endswith("/runs/create") else None

    lossy.follow(plan)
    assert SenderHere()._flush() is not None
    assert len([path for path in asked if path.endswith("/runs/create")]) == 1
    lossy.follow(None)
    send(lossy)
    assert_one_of_each(server, "blindly")


def test_a_call_that_mlflow_repeats_is_not_shown(empty_project: Project, server: Server, lossy: LossyServer) -> None:
    own_names(empty_project, "shown")
    lossy.follow(lambda _method, path, number: Fault.LOST_ANSWER if "/create" not in path and number == 1 else None)
    with empty_project.start(STAGES) as process:
        said, _ = process.communicate(timeout=120)
    assert said == ""
    assert lossy.faults[Fault.LOST_ANSWER] > 5
    assert_one_of_each(server, "shown")


@pytest.mark.parametrize("meets", ["/runs/create", "/logged-models", "/model-versions/create"])
def test_two_checkouts_in_the_same_state(
    meets: str, empty_project: Project, tmp_path: Path, server: Server, lossy: LossyServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The other sends all that it has between our first look and our creating."""
    name = f"two{meets.replace('/', '-')}"
    own_names(empty_project, name)
    shutil.copytree(empty_project.folder, tmp_path / "other")
    other = Project(tmp_path / "other")
    own_names(other, name)
    record_here(empty_project, monkeypatch)

    def plan(_method: str, path: str, number: int) -> None:
        if path.endswith(meets) and number == 1:
            with other.start(STAGES, MLFLOW_TRACKING_URI=server.url) as process:
                said, _ = process.communicate(timeout=120)
            assert said == ""

    lossy.follow(plan)
    send(lossy)
    assert_one_of_each(server, name)


def test_two_that_say_nothing_yet(
    empty_project: Project, server: Server, lossy: LossyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both of two parents are empty: the older one stays, and no other is RUNNING for ever."""
    from mlflow import MlflowClient

    own_names(empty_project, "nothing-yet")
    record_here(empty_project, monkeypatch)
    state = next(empty_project.folder.glob(".ltrec/tracking/*/represent*")).parent.name
    client = MlflowClient(server.url)
    experiment = client.create_experiment("nothing-yet")
    tags = {"ltrec.state": state, "ltrec.stage": "pipeline"}
    ids = [client.create_run(experiment, start, tags).info.run_id for start in (2000, 1000, 3000)]
    send(lossy)
    assert Ledger(server, "nothing-yet").runs()[1:] == [("represent", "FINISHED")]
    assert [client.get_run(each).info.lifecycle_stage for each in ids] == ["deleted", "active", "deleted"]
    assert client.get_run(ids[1]).info.status == "FINISHED"


def test_a_run_that_says_something_is_never_deleted(
    empty_project: Project, server: Server, lossy: LossyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    own_names(empty_project, "something")
    record_here(empty_project, monkeypatch)
    state = next(empty_project.folder.glob(".ltrec/tracking/*/represent*")).parent.name
    client = MlflowClient(server.url)
    experiment = client.create_experiment("something")
    tags = {"ltrec.state": state, "ltrec.stage": "pipeline"}
    empty, told, mother = (client.create_run(experiment, start, tags).info.run_id for start in (1000, 2000, 3000))
    client.log_metric(told, "all", 0.5)
    client.create_run(experiment, tags={"mlflow.parentRunId": mother})
    send(lossy)
    assert [client.get_run(each).info.lifecycle_stage for each in (empty, told, mother)] == [
        "deleted", "active", "active",
    ]  # fmt: skip
    assert client.get_run(told).info.status == "FINISHED"  # the oldest of those is the one that goes on


@pytest.mark.parametrize("broken", ["PUT", "/model-versions/create"])
def test_a_model_log_that_broke_off_is_continued(
    broken: str, empty_project: Project, server: Server, lossy: LossyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken in the upload, then another file is exported in the same state."""
    name = f"broken{broken.replace('/', '-')}"
    own_names(empty_project, name)
    record_here(empty_project, monkeypatch)
    lossy.follow(lambda method, path, _: Fault.LOST_REQUEST if broken == method or path.endswith(broken) else None)
    assert SenderHere()._flush() is not None
    assert len(Ledger(server, name).models()) == 1
    lossy.follow(None)
    send(lossy)
    assert_one_of_each(server, name)


def test_another_file_follows_one_whose_log_broke_off(
    empty_project: Project, server: Server, lossy: LossyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_names(empty_project, "another")
    record_here(empty_project, monkeypatch)
    lossy.follow(lambda method, path, _: Fault.LOST_REQUEST if method == "PUT" and "/models/" in path else None)
    assert SenderHere()._flush() is not None
    assert Ledger(server, "another").models() == [(1, "another")]
    write_model(empty_project.folder / "model.onnx", 0.02)
    record_here(empty_project, monkeypatch)
    lossy.follow(None)
    send(lossy)
    # Each export is a record of its own: both files are there in the end, and nothing is left half done.
    assert Ledger(server, "another").models() == [(2, "another"), (2, "another")]
    assert Ledger(server, "another").versions() == [(1,), (2,)]


def record_here(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Record two stages, as processes do that end before anything is sent."""
    with monkeypatch.context() as patch:
        patch.setattr("ltrec.tracking.sender", lambda _patience: SilentSender())
        params = project.params()
        with recording.stage_run(params, "represent") as run:
            run.params({"lr": 0.1})
            run.metrics({"loss": 0.5}, step=1)
        with recording.stage_run(params, "export") as run:
            run.model(project.folder / "model.onnx")
