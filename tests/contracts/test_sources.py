"""What every source has."""

from __future__ import annotations

from typing import Any

import pytest

from ltrec.data.sources import SourceSettings
from tests.contracts.members import examples, through_yaml

each = pytest.mark.parametrize("settings", examples(SourceSettings), ids=lambda settings: settings.kind)


@each
def test_yaml_round_trip(settings: Any) -> None:
    assert through_yaml(settings, SourceSettings) == settings


@each
def test_the_images_lie_below_a_root(settings: Any) -> None:
    # dvc.yaml depends on prepare.source.root.
    assert isinstance(settings.root, str)
