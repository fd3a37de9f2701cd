"""The templates that `dvc plots` draws with: Vega itself compiles them here, no browser and no internet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import vl_convert
from dvc_render.html import HTML
from dvc_render.vega import VegaRenderer

TEMPLATES = Path(__file__).parents[1] / ".dvc" / "plots"
RANKS = [
    {"variant": variant, "rank": str(rank), "smooth": str(value), "chosen": "0"}
    for variant, values in {"joint": (0.9, 0.2), "crt": (0.8, 0.7)}.items()
    for rank, value in enumerate(values)
]
GROUPS = [
    {"variant": "joint", "group": group, "accuracy": str(value), "low": str(value - 0.1), "high": str(value + 0.1)}
    for group, value in {"many": 0.8, "few": 0.2}.items()
]
CONFUSION = [
    {"actual": "ant", "predicted": "bee", "actual_rank": "0", "predicted_rank": "1", "images": "3", "share": "0.75"},
    {"actual": "ant", "predicted": "ant", "actual_rank": "0", "predicted_rank": "0", "images": "1", "share": "0.25"},
]


def drawn(template: str, rows: list[dict[str, str]], x: str, y: str) -> str:
    """What DVC fills into a template for two revisions, as SVG."""
    points: list[dict[str, Any]] = [row | {"rev": rev} for rev in ("HEAD", "workspace") for row in rows]
    renderer = VegaRenderer(
        points, "plot", template=template, template_dir=str(TEMPLATES),
        x=x, y=y, x_label="along", y_label="up", title="a title",
    )  # fmt: skip
    filled = renderer.get_filled_template()
    assert "<DVC_METRIC" not in str(filled)
    return vl_convert.vegalite_to_svg(filled)


@pytest.mark.parametrize(
    ("template", "rows", "x", "y", "shown"),
    [
        ("by_variant", RANKS, "rank", "smooth", {"joint", "crt", "HEAD", "workspace"}),
        ("shot_groups", GROUPS, "group", "accuracy", {"joint", "many", "few", "HEAD", "workspace"}),
        ("confusion_by_rank", CONFUSION, "predicted", "actual", {"ant", "bee", "HEAD", "workspace"}),
    ],
)
def test_template_draws(template: str, rows: list[dict[str, str]], x: str, y: str, shown: set[str]) -> None:
    picture = drawn(template, rows, x, y)
    for text in shown | {"a title", "along", "up"}:
        assert f">{text}<" in picture, text


def test_every_template_is_drawn_above() -> None:
    assert {path.stem for path in TEMPLATES.glob("*.json")} == {"by_variant", "shot_groups", "confusion_by_rank"}


def test_page_prefers_the_local_copy_and_keeps_dvcs_own_way() -> None:
    template = (TEMPLATES / "page.html").read_text(encoding="utf-8")
    page = HTML(template).with_scripts(VegaRenderer.SCRIPTS).with_element("<b>a plot</b>").embed()
    local, online, plot = (page.index(part) for part in ('src="../.ltrec/vega.js"', "cdn", "<b>a plot</b>"))
    assert local < online < plot
    assert page.index("<noscript") < online < page.index("</noscript>")
