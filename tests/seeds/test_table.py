"""The table over seeds, from evaluations of two and three seeds that are written out."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from rich.console import Console

from ltrec.seeds.table import SeedTable

FIGURES = ("many", "medium", "few", "all", "top5", "balanced", "macro_f1")


def evaluation(champion: str, selected_on: str = "val", **balanced: float) -> dict[str, Any]:
    """All figures of a variant alike, but for a group without classes."""
    variants = {name: dict.fromkeys(FIGURES, value) | {"medium": None} for name, value in balanced.items()}
    return {**variants, "champion": champion, "selected_on": selected_on, "test_set": "abc", "more": {"all": 1.0}}


def table(*, reference: str | None = "joint", selected_on: str = "val") -> SeedTable:
    evaluations = [
        evaluation("crt", selected_on, joint=0.5, crt=0.6, ncm=0.5),
        evaluation("crt", selected_on, joint=0.6, crt=0.8, ncm=0.7),
        evaluation("ncm", selected_on, joint=0.7, crt=1.0, ncm=0.6),
    ]
    return SeedTable([3, 4, 5], evaluations, ["joint", "crt", "ncm"], reference)


def shown(of: SeedTable, width: int, encoding: str = "utf-8") -> list[str]:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True)
    Console(file=stream, width=width).print(of)
    return stream.buffer.getvalue().decode(encoding).splitlines()  # type: ignore[attr-defined]


def test_the_champion_is_what_each_seed_chose() -> None:
    content = json.loads(json.dumps(table().as_json(), allow_nan=False))
    assert content["seeds"] == [3, 4, 5]
    assert content["champions"] == ["crt", "crt", "ncm"]
    assert list(content["figures"]) == ["joint", "crt", "ncm", "champion"]
    champion = content["figures"]["champion"]["all"]
    assert champion["values"] == [0.6, 0.8, 0.6]
    assert champion["mean"] == pytest.approx(2 / 3)


def test_the_differences_are_paired_and_adjusted() -> None:
    of = table()
    assert list(of.differences) == ["crt", "ncm", "champion"]
    # crt − joint: 0.1, 0.2, 0.3, p = 0.0742 (test_statistics.py). ncm − joint: 0, 0.1, −0.1, mean 0, p = 1.
    # champion − joint: 0.1, 0.2, −0.1: mean 1/15, s = 0.152753, t = 0.755929, p = 1 − t/√(2 + t²) = 0.528595.
    p = {name: of.differences[name]["balanced"].p_value for name in of.differences}  # type: ignore[union-attr]
    assert p == pytest.approx({"crt": 0.0741799, "ncm": 1.0, "champion": 0.5285955}, rel=1e-5)
    # Holm: the smallest by 3, the next by 2, the last by 1; none below one before, none above 1.
    assert {name: row["balanced"] for name, row in of.adjusted.items()} == pytest.approx(
        {"crt": 3 * 0.0741799, "champion": 1.0, "ncm": 1.0}, rel=1e-5
    )
    against = of.as_json()["figures"]["crt"]["all"]["against_joint"]
    assert against["mean"] == pytest.approx(0.2)
    assert against["p_value_holm"] == pytest.approx(3 * 0.0741799, rel=1e-5)
    assert of.metrics()["crt/all_minus_joint"] == pytest.approx(0.2)
    assert of.metrics()["joint/all_half_width"] == pytest.approx(0.2484138, rel=1e-6)


def test_a_group_without_classes_has_no_figure() -> None:
    of = table()
    assert of.means["crt"]["medium"] is None
    assert of.as_json()["figures"]["crt"]["medium"] == {"values": [None, None, None]}
    assert "crt/medium" not in of.metrics()
    assert "| crt | 80.0 ±49.7 | – | 80.0 ±49.7 |" in of.markdown()


def test_without_joint_there_are_no_differences() -> None:
    of = table(reference=None)
    assert of.differences == {}
    assert of.markdown().count("| --- |") == 1
    assert "joint" not in of.note


def test_it_fits_80_columns_and_a_narrow_terminal_has_the_intervals_below() -> None:
    wide, narrow = shown(table(), 80), shown(table(), 60)
    assert max(map(len, wide)) <= 80
    assert max(map(len, narrow)) <= 60
    assert any("80.0 ±49.7" in line for line in wide)
    assert not any("80.0 ±49.7" in line for line in narrow)
    (row,) = [line for line in wide if line.startswith("★ champion") and "+" not in line]
    assert row.split()[2:4] == ["66.7", "±28.7"]
    note = " ".join(" ".join(wide).split())
    assert "over 3 seeds (3–5)" in note
    assert "what each seed chose on val (crt 2, ncm 1)" in note


def test_a_terminal_of_ascii_is_shown_ascii() -> None:
    assert all(line.isascii() for line in shown(table(), 80, "ascii"))


def test_what_was_selected_on_test_says_so() -> None:
    assert "all was selected on test" in table(selected_on="test").note
    assert "selected on test" not in table().note
