"""Shot groups at their bounds."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from ltrec.data.shot_groups import ShotSettings, shot_groups


def test_shot_groups_at_their_bounds() -> None:
    # Many n > 100, medium 20 ≤ n ≤ 100, few n < 20.
    counts = np.array([1280, 101, 100, 20, 19, 0])
    assert shot_groups(counts, 100, 20).tolist() == ["many", "many", "medium", "medium", "few", "few"]


def test_shot_groups_where_the_bounds_meet() -> None:
    assert shot_groups(np.array([51, 50, 49]), 50, 50).tolist() == ["many", "medium", "few"]


def test_overlapping_bounds_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"few_below \(101\) must not exceed many_above \(100\)"):
        ShotSettings(few_below=101)
