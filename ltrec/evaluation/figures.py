"""The comparison's plots as image files: each CSV, drawn by the Vega-Lite template of its name in `templates/`.

`dvc plots` draws the same CSVs with the same templates; what a plot shows and says is written there alone. vl-convert
brings Vega and fonts of its own: an image needs no network and no system fonts, and the same rows give the same bytes.
"""

from __future__ import annotations

import json
import re
from importlib import resources
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from ltrec import artifacts
from ltrec.evaluation.page_text import plain_text
from ltrec.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

# Okabe & Ito 2008 without black and yellow; Paul Tol's bright and muted schemes (2021). All hold for colour-blind eyes.
PALETTES = {
    "colorblind": ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"),
    "bright": ("#4477AA", "#EE6677", "#228833", "#CCBB44", "#66CCEE", "#AA3377"),
    "muted": ("#332288", "#CC6677", "#117733", "#DDCC77", "#88CCEE", "#882255", "#44AA99", "#AA4499"),
}
TEMPLATES = resources.files("ltrec.evaluation") / "templates"


class PlotSettings(Settings):
    """How plots look; changing it draws them anew and trains nothing."""

    palette: Literal["colorblind", "bright", "muted"] = "colorblind"
    format: Literal["png", "svg"] = "png"
    dpi: Annotated[int, Field(ge=50, le=600)] = 150
    """Dots an inch of PNG images; a plot is about 8 inches wide."""

    def draw(self, table: Path, folder: Path) -> None:
        """Draw a CSV file into a folder, as the template of its name does; a table without rows has no image."""
        import vl_convert

        rows = [{key: plain_text(cell) for key, cell in row.items()} for row in artifacts.read_csv(table)]
        if not rows:
            return
        plot, version = fill(table.stem, rows, PALETTES[self.palette]), vega_lite_version()
        if self.format == "svg":
            image = _renumbered(vl_convert.vegalite_to_svg(plot, version, allowed_base_urls=[])).encode()
        else:
            image = vl_convert.vegalite_to_png(plot, version, ppi=self.dpi, allowed_base_urls=[])
        with artifacts.replacing(folder / f"{table.stem}.{self.format}") as temporary:
            temporary.write_bytes(image)


def fill(name: str, rows: Sequence[dict[str, str]], palette: Sequence[str]) -> dict[str, Any]:
    """Return a template as DVC fills it, its cells texts, with the colours of a palette."""
    plot: dict[str, Any] = json.loads((TEMPLATES / f"{name}.json").read_text(encoding="utf-8"))
    plot["data"]["values"] = rows
    for parameter in plot["params"]:
        if parameter["name"] == "palette":
            parameter["value"] = palette
    return plot


def vega_lite_version() -> str | None:
    """Return the newest Vega-Lite 5 that vl-convert carries: DVC's own templates are written in it, and so are ours."""
    import vl_convert

    return next((name for name in reversed(vl_convert.get_vegalite_versions()) if name.startswith("5.")), None)


def _renumbered(svg: str) -> str:
    """Return an SVG whose clip paths and gradients count from 1: Vega counts on from the image before."""
    names: dict[str, str] = {}
    return re.sub(
        r'(?<=id=")[a-z_]+\d+(?=")|(?<=url\(#)[a-z_]+\d+(?=\))',
        lambda name: names.setdefault(name[0], f"part{len(names) + 1}"),
        svg,
    )
