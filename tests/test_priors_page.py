"""docs/priors.md: its example is valid, and its numbers are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

from ltrec.config import params
from ltrec.serving import asked_prior
from ltrec.serving.abstaining import AbstainSettings

PAGE = (Path(__file__).parents[1] / "docs" / "priors.md").read_text(encoding="utf-8")
OTHERS = "represent: {backbone: {name: resnet50}}\nrebalance: {joint: {method: joint}}\n"


def test_the_example_is_valid() -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert params.parse(example + OTHERS).export.abstain == AbstainSettings(coverage=0.9)


def test_the_limits_of_the_estimate() -> None:
    assert f"It takes {asked_prior._LEAST_IMAGES} images" in PAGE
    assert asked_prior._KEPT_BYTES / 2**30 == 0.5
    assert round(asked_prior._KEPT_BYTES / (4 * 1000), -4) == 130_000
