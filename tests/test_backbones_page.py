"""docs/backbones.md against the code: its names exist, its figures are counted, its example is valid."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from ltrec.config import params
from ltrec.models import timm_names
from ltrec.models.backbones import CifarResNetName, TorchvisionName

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/backbones.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", sorted(set(re.findall(r"timm/\w+\.\w+", PAGE))))
def test_the_names_of_timms_exist(name: str) -> None:
    assert timm_names.exists(name)


def test_the_other_families_names_exist() -> None:
    assert {f"cifar_resnet{depth}" for depth in (8, 20, 32, 44, 56)} == set(get_args(CifarResNetName))
    assert {"resnet50", "convnext_tiny", "vit_b_16"} <= set(get_args(TorchvisionName))


def test_the_counts_are_the_lists() -> None:
    version, *lines = (ROOT / "ltrec/models/timm_names.txt").read_text(encoding="utf-8").splitlines()
    tags = sum(len(line.split()) - 1 for line in lines)
    assert f"{len(lines):,} architectures and {tags:,} published weights of {version}" in " ".join(PAGE.split())


@pytest.mark.parametrize("example", re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
def test_the_example_is_valid(example: str) -> None:
    assert params.parse(f"{example}rebalance: {{joint: {{method: joint}}}}\n").represent.backbone.name.startswith(
        "timm/"
    )


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)#]+)\)|`(tests/[\w/]+\.py)`", PAGE))
def test_what_it_names_is_there(target: tuple[str, str]) -> None:
    link, test = target
    assert (ROOT / "docs" / link).exists() if link else (ROOT / test).exists()
