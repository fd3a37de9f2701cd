"""Fixtures that several test files share; few and small."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ltrec.models.heads import LinearHead
    from ltrec.rebalancing.feature_bank import FeatureBank

# The tests' networks are small: on busy cores threads that wait for each other take several times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Started in the background of a shell, the tests would ignore Ctrl-C, and so would every process that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


_SLOW_TO_START = {"dvc", "ltrec", "mlflow", "torchrun", Path(sys.executable).name, "python", "python3"}


@pytest.fixture(autouse=True)
def _fast_tests_stay_fast(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep `make check` quick: fail a test that starts a Python process or imports MLflow.

    Those that are marked slow, and the campaigns, may.
    """
    if any(request.node.get_closest_marker(name) for name in ("slow", "campaign")):
        yield
        return

    def refuse(what: object) -> None:
        pytest.fail(f"starts {what}; mark the test slow", pytrace=False)

    def popen(process: object, args: object, *rest: Any, **options: Any) -> None:
        program = args[0] if isinstance(args, list | tuple) else str(args).split()[0]
        if Path(str(program)).name in _SLOW_TO_START:
            refuse(args)
        started(process, args, *rest, **options)

    started, imported = subprocess.Popen.__init__, "mlflow" in sys.modules
    monkeypatch.setattr(subprocess.Popen, "__init__", popen)
    monkeypatch.setattr(multiprocessing.process.BaseProcess, "start", refuse)
    yield
    if not imported and "mlflow" in sys.modules:
        refuse("MLflow")


class Banks(NamedTuple):
    """What a rebalancer is fitted on: 30, 10 and 2 training images of three classes, 8 of each to choose on."""

    train: FeatureBank
    val: FeatureBank
    joint: LinearHead


@pytest.fixture(scope="session")
def banks() -> Banks:
    """Five features an image, two views of train; overlapping clouds, and a joint head that prefers class 0.

    Shared: not to be changed.
    """
    import torch

    from ltrec.models.heads import LinearHead
    from ltrec.rebalancing.feature_bank import FeatureBank

    generator = torch.Generator().manual_seed(7)
    centers = 2 * torch.eye(3, 5)

    def bank(counts: tuple[int, ...], views: int) -> FeatureBank:
        labels = torch.repeat_interleave(torch.arange(3), torch.tensor(counts))
        noise = torch.randn(views, len(labels), 5, generator=generator)
        return FeatureBank(centers[labels] + noise, labels, {})

    joint = LinearHead(torch.diag(torch.tensor([3.0, 2.0, 0.5])) @ torch.eye(3, 5), torch.tensor([0.5, 0.0, -1.0]))
    return Banks(bank((30, 10, 2), views=2), bank((8, 8, 8), views=1), joint)


@pytest.fixture
def restored_torch(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """For tests of what seeds torch or makes it deterministic: afterwards it is as before."""
    import torch

    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    filling = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    deterministic, warn_only = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    with torch.random.fork_rng(devices=[]):
        yield
    torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
    torch.utils.deterministic.fill_uninitialized_memory = filling  # type: ignore[attr-defined]
