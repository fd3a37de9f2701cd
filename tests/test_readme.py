"""The README shows what the commands really printed, and figures that were really measured."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ltrec.config import params
from tests.commands import ltrec

if TYPE_CHECKING:
    from typing import Any

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def committed(path: str) -> Any:
    return json.loads((ROOT / path).read_text(encoding="utf-8"))


def shown(command: str) -> list[str]:
    """The lines that the README shows below a command."""
    block = README.split(f"    $ {command}\n", 1)[1]
    lines = re.match(r"(?:    (?!\$ ).*\n)+", block)
    assert lines is not None
    return [line[4:] for line in lines[0].splitlines()]


def test_the_table_is_the_committed_one() -> None:
    # The main one, without those that follow.
    table, *_ = (ROOT / "artifacts/evaluate/table.md").read_text(encoding="utf-8").partition("\n| variant | NLL |")
    assert table in README


def test_the_figures_over_the_seeds_are_the_benchmarks() -> None:
    measured = committed("benchmarks/results/digits.json")
    for variant, figures in measured["mean"].items():
        row = " | ".join(f"{100 * figures[name]:.1f}" for name in ("many", "medium", "few", "all"))
        assert f"| {variant} | {row} |\n" in README
    words = " ".join(README.split())
    seconds = committed("benchmarks/results/startup.json")["pipeline"]
    assert f"reaches {100 * measured['champion_all']:.1f} in `all` on average" in words
    assert f"The pipeline takes {seconds['digits, end to end']['median']:.0f} s" in words
    assert f"with nothing to do {seconds['dvc repro, nothing to do']['median']:.1f} s" in words


def test_the_mistake_is_explained_in_these_words(tmp_path: Path) -> None:
    right = (ROOT / "params.yaml").read_text(encoding="utf-8")
    lws = next(line for line in right.splitlines() if "method: lws" in line)
    (tmp_path / "params.yaml").write_text(right.replace(lws, lws.replace(" lr:", " lrr:")), encoding="utf-8")
    done = ltrec("params", "check", cwd=tmp_path)
    assert (done.returncode, done.stderr.splitlines()) == (2, shown("ltrec params check"))


def test_the_export_is_the_committed_one() -> None:
    check = committed("artifacts/export/check.json")
    (line,) = shown("ltrec export --onnx")
    assert line.startswith(f"export: {check['variant']}, {check['precision']}, {check['bytes'] / 1e6:.1f} MB; ")
    assert f"on {check['images']} val images agrees with PyTorch in {check['agreement']:.1%}, " in line
    assert f"largest logit difference {check['logit_difference']:.1e} → " in line


@pytest.mark.parametrize("example", re.findall(r"```yaml\n(.*?)```", README, re.DOTALL))
def test_the_examples_of_params_are_valid(example: str) -> None:
    sections = set(re.findall(r"^(\w+):", example, re.MULTILINE))
    own = (ROOT / "params.yaml").read_text(encoding="utf-8")
    others = re.sub(rf"^({'|'.join(sections)}):.*?(?=^\w|\Z)", "", own, flags=re.MULTILINE | re.DOTALL)
    assert params.parse(others + example).rebalance


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)#]+)\)", README))
def test_what_it_links_to_is_there(target: str) -> None:
    assert target.startswith("https://") or (ROOT / target).exists()
