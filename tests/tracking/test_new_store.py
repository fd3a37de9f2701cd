"""MLflow's tables are there as a whole or not at all: what a kill leaves half made, MLflow could never finish."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.tracking.conftest import Project

pytestmark = pytest.mark.slow


def test_what_a_killed_process_left_is_begun_anew(empty_project: Project) -> None:
    left = empty_project.folder / "mlflow.db.new"
    left.mkdir()
    with closing(sqlite3.connect(left / "mlflow.db")) as half:
        half.execute("CREATE TABLE _alembic_tmp_experiments (experiment_id INTEGER)")
        half.commit()
    assert empty_project.python("with recording.stage_run(params, 'evaluate'): pass") == ""
    assert set(empty_project.runs().values()) == {"FINISHED"}
    assert not left.exists()


def test_a_creation_that_fails_leaves_no_store(empty_project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    from ltrec.tracking import runs

    class Full:
        def __init__(self, _uri: str) -> None:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(runs, "MlflowClient", Full)
    with pytest.raises(OSError, match="No space left"):
        runs.Runs(lambda _seconds=None: None)
    assert list(empty_project.folder.glob("mlflow.db*")) == []
