"""Vega on disk, so that `dvc plots show` draws without internet.

DVC's page loads Vega from a content-delivery network. The page `templates/page.html`, which `.dvc/config`
names, loads `.ltrec/vega.js` first, which is made here from the copy that vl-convert carries.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from ltrec import artifacts, console
from ltrec.evaluation.figures import vega_lite_version

if TYPE_CHECKING:
    from pathlib import Path

_EXPORTS = "window.vega = vega; window.vegaLite = vegaLite; window.vegaEmbed = vegaEmbed;"


def provide(folder: Path) -> None:
    """Write `vega.js` into a folder, unless this version of it is there already.

    It is a convenience: without vl-convert a warning says what to expect, and nothing else happens.
    """
    file = folder / "vega.js"
    try:
        first = f"// Vega, Vega-Lite and Vega-Embed as bundled by vl-convert-python {version('vl-convert-python')}"
        if file.is_file() and _first_line(file) == first:
            return
        import vl_convert
    except (PackageNotFoundError, ImportError) as error:
        console.warn(f"{file}: not written ({error}); `dvc plots show` will need internet")
        return
    bundle = vl_convert.javascript_bundle(_EXPORTS, vega_lite_version())
    artifacts.write_text(file, f"{first}\n{bundle}\n")


def _first_line(file: Path) -> str:
    with file.open(encoding="utf-8") as lines:
        return lines.readline().rstrip("\n")
