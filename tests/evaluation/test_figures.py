"""Plots: there, the same twice, and true to their numbers. An SVG file tells what each of its marks stands for."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from ltrec import artifacts
from ltrec.evaluation import plot_rows
from ltrec.evaluation.choice import Choice
from ltrec.evaluation.figures import PALETTES, TEMPLATES, PlotSettings, fill
from ltrec.evaluation.metrics import score
from ltrec.evaluation.predictions import Predictions
from ltrec.evaluation.report import Report, Result
from ltrec.evaluation.statistics import bootstrap
from tests.scores import made_up_calibration

if TYPE_CHECKING:
    from pathlib import Path

STEMS = {"accuracy_by_rank", "groups", "confusion", "weight_norms", "tau_curve", "reliability", "risk_coverage"}
FIRST, SECOND = PALETTES["colorblind"][:2]


def compared(classes: int, variants: tuple[str, ...] = ("joint", "ncm", "crt"), champion: str = "crt") -> Report:
    """Return a report on made-up answers; the last variant has a τ curve, NCM has no norms."""
    random = np.random.default_rng(0)
    counts = np.geomspace(300, 3, classes).astype(np.int64)
    groups = np.where(counts > 100, "many", np.where(counts < 20, "few", "medium"))
    labels = np.repeat(np.arange(classes), 4)
    given = {
        name: Predictions(random.integers(0, classes, len(labels)), np.ones(len(labels), dtype=bool))
        for name in variants
    }
    intervals = bootstrap(labels, given, groups, resamples=9, seed=0)
    curve = [{"tau": 0, "val": 0.5}, {"tau": 1, "val": 0.9}, {"tau": 0.5, "val": 0.8}]
    results = {
        name: Result(
            answers, score(labels, answers, groups), intervals[name], None,
            {"val": {"balanced": 0.6}} | ({"curve": curve, "chosen": {"tau": 1}} if name == variants[-1] else {}),
            None if name == "ncm" else random.random(classes) + 1,
            made_up_calibration(labels, answers.predicted, classes),
        )
        for name, answers in given.items()
    }  # fmt: skip
    reference = "joint" if "joint" in variants else None
    names = tuple(f"class {label}" for label in range(classes))
    return Report(names, counts, groups, labels, results, Choice(champion, champion), reference)


def draw_all(settings: PlotSettings, folder: Path, report: Report) -> dict[str, bytes]:
    """Draw every plot; return the images by name."""
    for name, rows in plot_rows.tables(report).items():
        artifacts.write_csv(folder / f"{name}.csv", rows)
        settings.draw(folder / f"{name}.csv", folder / "images")
    return {path.name: path.read_bytes() for path in (folder / "images").iterdir()}


def drawn(name: str, folder: Path, rows: list[dict[str, object]], **settings: str) -> str:
    """Draw one plot over rows; return its SVG."""
    artifacts.write_csv(folder / f"{name}.csv", rows)
    PlotSettings.model_validate({"format": "svg", **settings}).draw(folder / f"{name}.csv", folder)
    return (folder / f"{name}.svg").read_text(encoding="utf-8")


def texts(svg: str) -> list[str]:
    return re.findall(r">([^<]+)</text>", svg)


def marks(svg: str, kind: str) -> list[str]:
    """Return the elements of the marks of a kind, each with its label and its look."""
    return [mark for mark in re.findall(r"<path [^>]*>", svg) if f'aria-roledescription="{kind}"' in mark]


def lines(svg: str) -> dict[str, tuple[str, float, bool]]:
    """Return the colour, the width and whether it is dashed of each variant's line."""
    found = {}
    for mark in marks(svg, "line mark"):
        name, color, width, dash = (
            re.search(pattern, mark)
            for pattern in (r'key: \d{3}([^"]*)"', r'stroke="([^"]*)"', r'stroke-width="([^"]*)"', r'asharray="(\d+)')
        )
        assert name
        assert color
        assert width
        assert dash
        red, green, blue = (int(part) for part in re.findall(r"\d+", color[1])[:3])
        found[name[1]] = (f"#{red:02X}{green:02X}{blue:02X}", float(width[1]), int(dash[1]) < 1000)
    return found


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_the_same_rows_give_the_same_bytes(tmp_path: Path, ending: str) -> None:
    settings = PlotSettings.model_validate({"dpi": 50, "format": ending})
    first, again = (draw_all(settings, tmp_path / name, compared(6)) for name in "ab")
    assert set(first) == {f"{stem}.{ending}" for stem in STEMS}
    assert first == again


def test_png_opens_at_the_resolution_asked_for(tmp_path: Path) -> None:
    sizes = []
    for dpi in (72, 144):
        draw_all(PlotSettings(dpi=dpi), tmp_path, compared(6))
        with Image.open(tmp_path / "images" / "groups.png") as image:
            image.load()
            sizes.append(image.size)
    (width, height), doubled = sizes
    assert doubled == pytest.approx((2 * width, 2 * height), abs=2)
    assert width / 72 == pytest.approx(8, abs=0.5)


@pytest.mark.slow
def test_a_thousand_classes_single_ones_and_many_variants(tmp_path: Path) -> None:
    many = ("joint", *(f"v{number}" for number in range(29)))
    for report in (compared(1), compared(2), compared(1000), compared(3, many, "v3"), compared(3, ("crt",))):
        assert len(draw_all(PlotSettings(dpi=50), tmp_path / str(len(report.results)), report)) == len(STEMS)


def test_a_table_without_rows_has_no_image(tmp_path: Path) -> None:
    artifacts.write_text(tmp_path / "tau_curve.csv", "variant,tau,val,chosen\n")
    PlotSettings().draw(tmp_path / "tau_curve.csv", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["tau_curve.csv"]


def test_what_every_template_shares_is_the_same() -> None:
    templates = {name: json.loads((TEMPLATES / f"{name}.json").read_text(encoding="utf-8")) for name in STEMS}
    assert len({json.dumps(plot["config"]) for plot in templates.values()}) == 1
    # Up to the dash, the look of a variant is worked out in the same way.
    looks = [plot["transform"][:14] for name, plot in templates.items() if name != "confusion"]
    assert all(look == looks[0] and look[-1]["as"] == "dash" for look in looks)
    for name in STEMS - {"confusion"}:
        assert templates[name]["params"][0] == {"name": "palette", "value": list(PALETTES["colorblind"])}


def test_a_variant_keeps_its_colour_joint_is_black_and_dashed_the_champion_thick(tmp_path: Path) -> None:
    report = compared(6)
    ranks, norms = (
        drawn("accuracy_by_rank", tmp_path, plot_rows.rank_rows(report)),
        drawn("weight_norms", tmp_path, plot_rows.norm_rows(report)),
    )
    looks = lines(ranks)
    assert looks == {
        "joint": ("#222222", 1.5, True), "ncm": (FIRST, 1.5, False), "crt (champion)": (SECOND, 2.8, False),
    }  # fmt: skip
    assert lines(norms) == {name: look for name, look in looks.items() if name != "ncm"}
    curve = drawn("tau_curve", tmp_path, plot_rows.tau_rows(report))
    assert lines(curve) == {"crt (champion)": looks["crt (champion)"]}


def test_thirty_variants_are_thirty_colours(tmp_path: Path) -> None:
    variants = ("joint", *(f"v{number}" for number in range(29)))
    looks = lines(drawn("weight_norms", tmp_path, plot_rows.norm_rows(compared(2, variants, "v1"))))
    assert len({color for color, *_ in looks.values()}) == 30


def test_a_palette_colours_the_variants(tmp_path: Path) -> None:
    rows = plot_rows.rank_rows(compared(6))
    assert lines(drawn("accuracy_by_rank", tmp_path, rows, palette="muted"))["ncm"][0] == PALETTES["muted"][0]
    assert fill("groups", [], PALETTES["muted"])["params"][0]["value"] == PALETTES["muted"]


def test_ranks_lie_over_the_training_images_and_between_named_groups(tmp_path: Path) -> None:
    svg = drawn("accuracy_by_rank", tmp_path, plot_rows.rank_rows(compared(6)))
    # 300 … 3 in six steps; the logarithmic axis goes to ten times the most.
    assert [re.search(r"; training images: (\d+)", mark)[1] for mark in marks(svg, "rect mark")] == [  # type: ignore[index]
        "300", "119", "47", "18", "7", "3",
    ]  # fmt: skip
    shown = texts(svg)
    assert {"training images", "1", "10", "100", "1,000", "many", "medium", "few", "class 5"} <= set(shown)
    assert shown[-1] == "Accuracy by class"
    assert svg.count('stroke-dasharray="2,3"') == 2


def test_beyond_forty_classes_a_line_is_a_running_mean_and_classes_go_unnamed(tmp_path: Path) -> None:
    few, many = (drawn("weight_norms", tmp_path, plot_rows.norm_rows(compared(classes))) for classes in (40, 41))
    assert texts(few)[-1] == "Weight norms by class"
    assert texts(many)[-1] == "Weight norms by class, running mean over 3 classes"
    assert (len(marks(few, "point")), len(marks(many, "point"))) == (2 * 40, 0)
    assert not [text for text in texts(few) if text.startswith("class ")]


def test_a_group_too_narrow_for_its_name_goes_without(tmp_path: Path) -> None:
    rows = plot_rows.rank_rows(compared(100, ("joint",), "joint"))
    for row in rows:
        row["shot"] = "many" if int(str(row["rank"])) < 3 else "medium" if int(str(row["rank"])) < 20 else "few"
    svg = drawn("accuracy_by_rank", tmp_path, rows)
    assert [text for text in texts(svg) if text in {"many", "medium", "few"}] == ["medium", "few"]
    assert svg.count('stroke-dasharray="2,3"') == 2


def test_the_chosen_tau_is_marked_and_joint_is_a_dashed_line(tmp_path: Path) -> None:
    svg = drawn("tau_curve", tmp_path, plot_rows.tau_rows(compared(6)))
    assert {"τ = 1: 90.0 %", "joint: 60.0 %", "crt (champion)"} <= set(texts(svg))
    assert len(marks(svg, "point")) == 1
    assert svg.count('stroke-dasharray="6,3"') == 1
    without = drawn("tau_curve", tmp_path, plot_rows.tau_rows(compared(6, ("crt",))))
    assert 'stroke-dasharray="6,3"' not in without


def test_groups_stand_in_order_with_intervals_and_values(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"variant": "crt", "group": group, "accuracy": 0.5, "low": low, "high": 0.75, "place": 1, "champion": 1}
        for group, low in {"all": 0.25, "few": 0.25, "many": 0.25}.items()
    ]
    shown = texts(drawn("groups", tmp_path, rows))
    assert shown[:3] == ["many", "few", "all"]
    assert shown.count("50") == 3
    assert shown[-1] == "Accuracy by shot group, 95 % intervals"
    sure = [row | {"low": 0.5, "high": 0.5} for row in rows]
    assert texts(drawn("groups", tmp_path, sure))[-1] == "Accuracy by shot group"


def cells(svg: str) -> dict[tuple[str, str], float]:
    """Return the percentages of a confusion matrix by true and predicted class."""
    found = [
        re.search(r'predicted class: (\d+)[^;]*; true class: (\d+)[^;]*; percent: ([\d.]+)"', mark)
        for mark in marks(svg, "rect mark")
    ]
    return {(match[2], match[1]): float(match[3]) for match in found if match}


def confusion(*images: tuple[int, int, int]) -> list[dict[str, object]]:
    """Return the rows of one variant's (true, predicted, images), the class being its own name."""
    tested = np.bincount([row for row, *_ in images], [count for *_, count in images])
    return [
        {
            "actual": "abc"[row % 3], "predicted": "abc"[column % 3], "actual_rank": row, "predicted_rank": column,
            "images": count, "share": count / tested[row] if count else "", "shot": "many" if row < 2 else "few",
            "variant": "crt", "place": 1, "champion": 1,
        }
        for row, column, count in images
    ]  # fmt: skip


def test_confusions_are_shares_and_every_class_is_on_both_axes(tmp_path: Path) -> None:
    # Nobody takes anything for class 1, which has test images; class 2 has none, and nobody takes anything for it.
    svg = drawn("confusion", tmp_path, confusion((0, 0, 3), (0, 1, 1), (1, 0, 2), (2, 2, 0)))
    assert cells(svg) == {("0000", "0000"): 75, ("0000", "0001"): 25, ("0001", "0000"): 100}
    assert texts(svg)[:8] == ["a", "b", "c", "predicted class", "a", "b", "c", "true class"]
    assert {"75", "25", "100", "crt (champion)"} <= set(texts(svg))


def test_beyond_a_hundred_classes_blocks_of_rows_are_averaged(tmp_path: Path) -> None:
    rows = [(rank, rank, 1) for rank in range(4, 101)]
    # Shares of the first block of two: (½, 0, ½), (0, 1, 0). Columns 0 and 1 add up, rows 0 and 1 are averaged; of
    # rows 2 and 3 only the first has test images.
    svg = drawn("confusion", tmp_path, confusion((0, 0, 2), (0, 2, 2), (1, 1, 1), (2, 1, 4), (3, 3, 0), *rows))
    found = cells(svg)
    assert (found["0000", "0000"], found["0000", "0001"], found["0001", "0000"]) == (75, 25, 100)
    assert found["0050", "0050"] == 100
    assert ("0001", "0001") not in found or found["0001", "0001"] == 0
    assert texts(svg)[-1] == "Confusion by class rank, mean over blocks of 2"


def test_classes_and_groups_without_test_images(tmp_path: Path) -> None:
    rows = plot_rows.rank_rows(compared(2, ("joint",), "joint"))
    rows[1] |= {"accuracy": "", "smooth": ""}
    svg = drawn("accuracy_by_rank", tmp_path, rows)
    assert len(marks(svg, "point")) == 1


def test_odd_names(tmp_path: Path) -> None:
    rows = plot_rows.rank_rows(compared(2, ("joint", "a|b's \\ <c>"), "joint"))
    rows[0]["class"], rows[1]["class"] = "$x_$", "猫 ^_{ and more than fits"
    shown = texts(drawn("accuracy_by_rank", tmp_path, rows))
    assert {"$x_$", "猫 ^_{ and mor…", "a|b's \\ &lt;c&gt;"} <= set(shown)


def test_names_that_pages_and_spreadsheets_would_run_are_drawn_as_they_are(tmp_path: Path) -> None:
    report = dataclasses.replace(compared(2, ("joint",), "joint"), names=("=1+1", "</script>"))
    rows = plot_rows.tables(report)["accuracy_by_rank"]
    shown = texts(drawn("accuracy_by_rank", tmp_path, rows))
    assert {"=1+1", "&lt;/script&gt;"} <= set(shown)
    written = (tmp_path / "accuracy_by_rank.csv").read_text(encoding="utf-8")
    assert "'=1+1" in written
    assert "</script>" not in written


def test_unknown_palette_is_refused() -> None:
    with pytest.raises(ValidationError, match="palette"):
        PlotSettings.model_validate({"palette": "rainbow"})


def test_reliability_lies_over_the_diagonal_and_large_bins_are_large_points(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"variant": "crt", "low": 0.4, "high": 0.6, "share": share, "confidence": sure, "accuracy": 0.5, "place": 1,
         "champion": 1}
        for sure, share in ((0.45, 0.1), (0.9, 0.9))
    ]  # fmt: skip
    svg = drawn("reliability", tmp_path, rows)
    assert svg.count('stroke-dasharray="2,3"') == 1
    assert len(marks(svg, "point")) == 2
    assert lines(svg)["crt (champion)"] == (FIRST, 2.8, False)
    assert {"largest probability, mean of a bin", "accuracy"} <= set(texts(svg))


def test_risk_is_shown_in_per_cent_of_the_images_accepted(tmp_path: Path) -> None:
    svg = drawn("risk_coverage", tmp_path, plot_rows.risk_rows(compared(6)))
    assert set(lines(svg)) == {"joint", "ncm", "crt (champion)"}
    assert {"images accepted, the surest first, %", "errors among them, %", "100"} <= set(texts(svg))
