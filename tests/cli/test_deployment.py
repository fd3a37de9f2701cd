"""The options of `export` that say where the model will work."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ltrec import artifacts
from ltrec.artifacts import Layout
from ltrec.cli import deployment
from ltrec.errors import UserError
from ltrec.serving.abstaining import AbstainSettings

if TYPE_CHECKING:
    from pathlib import Path


def test_rates_become_settings() -> None:
    assert deployment.abstain(None, None) is None
    assert deployment.abstain(0.25, None) == AbstainSettings(coverage=0.75)
    assert deployment.abstain(None, 0.05) == AbstainSettings(error=0.05)


@pytest.mark.parametrize(
    ("rates", "told"),
    [
        ((0.1, 0.1), "--abstain and --max-error exclude each other"),
        ((0.0, None), "--abstain: must be above 0 and below 1, got 0"),
        ((None, 1.5), "--max-error: must be above 0 and below 1, got 1.5"),
        ((float("nan"), None), "--abstain: must be above 0 and below 1, got nan"),
    ],
)
def test_mistakes(rates: tuple[float | None, float | None], told: str) -> None:
    with pytest.raises(UserError) as caught:
        deployment.abstain(*rates)
    assert str(caught.value) == told


def test_a_prior_is_a_word_or_the_numbers_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    artifacts.write_text(Layout().classes, "cat\ndog\n")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "prior.json").write_text('{"dog": 0.25, "cat": 0.75}')
    assert deployment.prior(None, tmp_path) is None
    assert deployment.prior("uniform", tmp_path) == "uniform"
    assert deployment.prior("prior.json", tmp_path / "sub") == {"cat": 0.75, "dog": 0.25}
