"""Plots: there, the same twice, and true to their numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError
from scipy.sparse import csr_array

from ltrec.data.shot_groups import shot_groups
from ltrec.evaluation import metrics
from ltrec.evaluation.plots import Artist, PlotSettings

if TYPE_CHECKING:
    from pathlib import Path

VARIANTS = ("joint", "ncm", "crt")
STEMS = {"accuracy_by_rank", "groups", "confusion", "weight_norms", "tau_curve"}


def artist(**settings: object) -> Artist:
    return PlotSettings.model_validate({"dpi": 50, **settings}).build(VARIANTS, reference="joint", champion="crt")


def draw_all(drawn: Artist, folder: Path, classes: int) -> dict[str, bytes]:
    """Every plot over made-up figures; the files by name."""
    random = np.random.default_rng(0)
    counts = np.geomspace(300, 3, classes).astype(np.int64)
    groups, names = shot_groups(counts, 100, 20), [f"class {label}" for label in range(classes)]
    labels = np.repeat(np.arange(classes), 4)
    answers = {
        name: metrics.Predictions(random.integers(0, classes, len(labels)), np.ones(len(labels), dtype=bool))
        for name in VARIANTS
    }
    drawn.accuracy_by_rank(
        folder,
        {name: metrics.per_class_accuracy(labels, given.predicted, classes) for name, given in answers.items()},
        counts, groups, names,
    )  # fmt: skip
    drawn.group_bars(
        folder,
        {name: metrics.score(labels, given, groups) for name, given in answers.items()},
        metrics.bootstrap(labels, answers, groups, resamples=9, seed=0),
        ["many", "medium", "few", "all"],
    )
    matrices = {name: metrics.confusion(labels, answers[name].predicted, classes) for name in ("joint", "crt")}
    drawn.confusion(folder, matrices, groups, names)
    drawn.weight_norms(folder, {"joint": random.random(classes) + 1}, groups, counts, names)
    drawn.tau_curve(folder, {"ncm": np.array([[0, 0.5], [1, 0.9], [0.5, 0.8]])}, {"ncm": 1.0}, 0.6)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_the_same_figures_give_the_same_bytes(tmp_path: Path, ending: str) -> None:
    first, again = (draw_all(artist(format=ending), tmp_path / name, 6) for name in "ab")
    assert set(first) == {f"{stem}.{ending}" for stem in STEMS}
    assert first == again


def test_nothing_is_written_as_math(tmp_path: Path) -> None:
    # An SVG file tells the text of each of its drawn lines in a comment.
    plots = draw_all(artist(format="svg"), tmp_path, 6)
    assert b"<!-- 100 -->" in plots["accuracy_by_rank.svg"]
    assert not [name for name, content in plots.items() if b"$" in content or b"mathdefault" in content]


def test_png_opens_at_the_resolution_asked_for(tmp_path: Path) -> None:
    draw_all(artist(dpi=100), tmp_path, 6)
    with Image.open(tmp_path / "groups.png") as image:
        image.load()
        assert image.size == (840, 440)


def test_a_thousand_classes_and_single_ones(tmp_path: Path) -> None:
    for classes in (1, 2, 1000):
        assert len(draw_all(artist(), tmp_path / str(classes), classes)) == len(STEMS)


def test_classes_and_groups_without_test_images(tmp_path: Path) -> None:
    drawn = artist()
    nothing = np.array([0.5, np.nan])
    groups = np.array(["many", "few"])
    drawn.accuracy_by_rank(tmp_path, {"joint": nothing}, np.array([200, 0]), groups, ["a", "b"])
    drawn.group_bars(
        tmp_path, {"joint": {"many": 0.5, "few": None}}, {"joint": {"many": None, "few": None}}, ["many", "few"]
    )
    drawn.confusion(tmp_path, {"joint": csr_array([[2, 2], [0, 0]])}, groups, ["a", "b"])
    assert {path.stem for path in tmp_path.iterdir()} == {"accuracy_by_rank", "groups", "confusion"}


def test_odd_class_names(tmp_path: Path) -> None:
    groups = np.array(["many", "few"])
    names = ["$x_$", "猫 ^_{"]
    artist().accuracy_by_rank(tmp_path, {"joint": np.array([0.5, 1])}, np.array([200, 1]), groups, names)
    artist().confusion(tmp_path, {"joint": csr_array([[2, 2], [1, 3]])}, groups, names)
    assert {path.stem for path in tmp_path.iterdir()} == {"accuracy_by_rank", "confusion"}


def test_a_variant_keeps_its_colour_and_the_reference_is_black() -> None:
    drawn = PlotSettings().build([f"v{number}" for number in range(8)], reference="v0", champion="v1")
    looks = [drawn._look(f"v{number}") for number in range(8)]
    assert looks[0] == ("#222222", 0)
    assert len(set(looks)) == 8
    assert looks[7] == (looks[1][0], 1)  # six colours, then the first again, marked as its second use


def test_unknown_palette_is_refused() -> None:
    with pytest.raises(ValidationError, match="palette"):
        PlotSettings.model_validate({"palette": "rainbow"})
