"""The templates as `dvc plots` fills them: Vega itself compiles them here, no browser and no internet."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import vl_convert
from dvc_render.html import HTML
from dvc_render.vega import VegaRenderer
from ruamel.yaml import YAML

from ltrec import artifacts
from ltrec.evaluation.figures import TEMPLATES, vega_lite_version
from ltrec.evaluation.page_text import page_text, plain_text

ROOT = Path(__file__).parents[1]
LOOKS = {"joint": {"place": "0", "champion": "0"}, "crt": {"place": "2", "champion": "1"}}
RANK = {"train": "30", "shot": "many", "class": "ant", "window": "1"}
RANKS = [
    {"variant": variant, "rank": str(rank), "smooth": str(value), "relative": str(value)} | RANK | LOOKS[variant]
    for variant, values in {"joint": (0.9, 0.2), "crt": (0.8, 0.7)}.items()
    for rank, value in enumerate(values)
]
GROUPS = [
    {"variant": variant, "group": group, "accuracy": str(value), "low": str(value - 0.1), "high": str(value + 0.1)}
    | LOOKS[variant]
    for variant in LOOKS
    for group, value in {"all": 0.5, "few": 0.2, "many": 0.8}.items()
]
TAUS = [
    {"variant": "crt", "tau": tau, "val": val, "chosen": chosen, "reference": "joint", "reference_val": "0.6"}
    | LOOKS["crt"]
    for tau, val, chosen in (("0.0", "0.5", "0"), ("0.5", "0.8", "1"))
]
# Twelve classes, the last of which nobody ever says.
CONFUSION = [
    {"actual": f"c{rank}", "predicted": f"c{min(rank, 10)}", "actual_rank": str(rank),
     "predicted_rank": str(min(rank, 10)), "images": "4", "share": "1.0", "shot": "many", "variant": "crt"}
    | LOOKS["crt"]
    for rank in range(12)
]  # fmt: skip
RELIABILITY = [
    {"variant": variant, "low": str(sure - 0.1), "high": str(sure), "share": "0.5", "confidence": str(sure - 0.05),
     "accuracy": str(sure - 0.2)} | LOOKS[variant]
    for variant in LOOKS
    for sure in (0.6, 0.8)
]  # fmt: skip
RISKS = [
    {"variant": variant, "coverage": str(coverage), "risk": str(coverage / 4)} | LOOKS[variant]
    for variant in LOOKS
    for coverage in (0.5, 1.0)
]
TABLES = {
    "accuracy_by_rank": RANKS, "weight_norms": RANKS, "groups": GROUPS, "tau_curve": TAUS, "confusion": CONFUSION,
    "reliability": RELIABILITY, "risk_coverage": RISKS,
}  # fmt: skip


def declared() -> dict[str, dict[str, Any]]:
    """Return the plots of dvc.yaml that a template of ours draws, by the name of their table."""
    plots: list[Any] = YAML(typ="safe").load(ROOT / "dvc.yaml")["plots"]
    own = [
        content for plot in plots if isinstance(plot, dict) for content in plot.values() if "/" in content["template"]
    ]
    return {Path(next(iter(plot["y"]))).stem: plot for plot in own}


def drawn(table: str, rows: list[dict[str, str]], *revisions: str) -> str:
    """Return a plot of the same rows in some revisions, as SVG."""
    return fill_and_draw(table, [row | {"rev": rev} for rev in revisions for row in rows])


def fill_and_draw(table: str, points: list[dict[str, str]]) -> str:
    plot = declared()[table]
    renderer = VegaRenderer(
        points, "plot", template=plot["template"], template_dir=str(ROOT / ".dvc" / "plots"),
        x=plot["x"], y=next(iter(plot["y"].values())),
    )  # fmt: skip
    filled = renderer.get_filled_template()
    assert "<DVC_METRIC" not in str(filled)
    return str(vl_convert.vegalite_to_svg(filled, vega_lite_version()))


def texts(svg: str) -> list[str]:
    return re.findall(r">([^<]+)</text>", svg)


def test_every_template_is_declared_once_beside_its_table() -> None:
    assert set(declared()) == set(TABLES) == {path.stem for path in Path(str(TEMPLATES)).glob("*.json")}
    for table, plot in declared().items():
        assert Path(plot["template"]).stem == table


@pytest.mark.parametrize("table", TABLES)
def test_template_tells_revisions_apart_by_name(table: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # `dvc plots` finds the templates from any folder
    shown = texts(drawn(table, TABLES[table], "HEAD", "workspace"))
    assert {"crt (champion), HEAD", "crt (champion), workspace"} <= set(shown)
    alone = texts(drawn(table, TABLES[table], "workspace"))
    assert "crt (champion)" in alone
    assert not [text for text in alone if "workspace" in text]


def test_revisions_differ_in_dash_and_keep_the_colour_of_the_variant() -> None:
    svg = drawn("accuracy_by_rank", RANKS, "HEAD", "workspace")
    look = r'stroke="rgba\((\d+, \d+, \d+), ([\d.]+)\)"[^>]*asharray="(\d+)'
    lines = re.findall(rf'key: \d{{3}}crt \(champion\), (\w+)"[^>]*line mark[^>]*{look}', svg)
    (head, color, faint, dashed), (workspace, same, full, solid) = lines
    assert (head, workspace) == ("HEAD", "workspace")
    assert color == same == "213, 94, 0"  # the palette's second: crt's place is 2, though it is the first to be drawn
    assert float(faint) < float(full)
    assert int(dashed) < 1000 <= int(solid)


def test_a_variant_that_another_revision_placed_elsewhere_has_one_colour() -> None:
    before = [row | {"place": "1", "rev": "HEAD"} for row in TAUS]
    svg = fill_and_draw("tau_curve", before + [row | {"rev": "workspace"} for row in TAUS])
    assert set(re.findall(r'line mark[^>]*stroke="rgba\((\d+, \d+, \d+)', svg)) == {"213, 94, 0"}


def test_legend_shows_strokes() -> None:
    svg = drawn("weight_norms", RANKS, "HEAD", "workspace")
    legend = svg[svg.index('class="mark-symbol role-legend-symbol"') :]
    strokes = re.findall(r'stroke="(rgba[^"]*)"[^>]*asharray="([^"]*)"', legend)
    assert len(set(strokes)) == 4


def test_groups_stand_in_order() -> None:
    assert texts(drawn("groups", GROUPS, "HEAD", "workspace"))[:3] == ["many", "few", "all"]


def test_confusion_keeps_the_order_of_ranks_and_every_class_on_both_axes() -> None:
    shown = texts(drawn("confusion", CONFUSION, "workspace"))
    classes = [f"c{rank}" for rank in range(12)]
    assert shown[:12] == shown[13:25] == classes
    assert (shown[12], shown[25]) == ("predicted class", "true class")


def test_page_prefers_the_local_copy_and_keeps_dvcs_own_way() -> None:
    template = (ROOT / "ltrec/evaluation/templates/page.html").read_text(encoding="utf-8")
    page = HTML(template).with_scripts(VegaRenderer.SCRIPTS).with_element("<b>a plot</b>").embed()
    local, online, plot = (page.index(part) for part in ('src="../.ltrec/vega.js"', "cdn", "<b>a plot</b>"))
    assert local < online < plot
    assert page.index("<noscript") < online < page.index("</noscript>")


def test_a_class_name_stays_text_in_the_page(tmp_path: Path) -> None:
    name = "</script><script>alert(1)</script><!-- <DVC_METRIC_DATA>"
    safe = page_text(name)
    assert plain_text(safe) == name
    artifacts.write_csv(tmp_path / "a.csv", [row | {"class": safe} for row in RANKS])
    points = [row | {"rev": "workspace"} for row in artifacts.read_csv(tmp_path / "a.csv")]
    plot = declared()["accuracy_by_rank"]
    page = VegaRenderer(
        points, "plot", template=plot["template"], template_dir=str(ROOT / ".dvc" / "plots"), x="rank", y="smooth"
    ).generate_html()
    assert "alert(1)" in page
    assert page.count("</script>") == page.count("<script") == 1
    assert "<!--" not in page
