"""How many classes become few points."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy.sparse import csr_array

from ltrec.evaluation.drawing import mark_groups, mean_of_blocks, running_mean, running_window


@pytest.mark.parametrize(("classes", "window"), [(10, 1), (40, 1), (41, 3), (100, 5), (365, 19), (1000, 51)])
def test_window_is_odd_and_a_twentieth(classes: int, window: int) -> None:
    assert running_window(classes) == window


def test_running_mean_by_hand() -> None:
    values = np.array([1.0, 2.0, 6.0, np.nan, 3.0])
    # Ends average what there is; what is not known does not count.
    np.testing.assert_allclose(running_mean(values, 3), [1.5, 3.0, 4.0, 4.5, 3.0])
    np.testing.assert_array_equal(running_mean(values, 1), values)


def test_running_mean_of_nothing_is_nan() -> None:
    np.testing.assert_array_equal(running_mean(np.array([1.0, np.nan, np.nan, np.nan, 1.0]), 3)[2], np.nan)


def test_blocks_of_one_are_the_row_normalised_matrix() -> None:
    matrix = csr_array([[3, 1], [0, 0]])
    np.testing.assert_array_equal(mean_of_blocks(matrix, 1), [[0.75, 0.25], [np.nan, np.nan]])


def test_blocks_by_hand() -> None:
    matrix = csr_array([[2, 0, 2], [0, 1, 0], [1, 0, 3]])
    # Rows as shares: (½, 0, ½), (0, 1, 0), (¼, 0, ¾). Columns 0 and 1 add up, rows 0 and 1 are averaged.
    np.testing.assert_allclose(mean_of_blocks(matrix, 2), [[(0.5 + 1) / 2, 0.25], [0.25, 0.75]])


def test_blocks_leave_out_classes_without_test_images() -> None:
    matrix = csr_array([[2, 2], [0, 0]])
    np.testing.assert_allclose(mean_of_blocks(matrix, 2), [[1.0]])


def test_a_group_too_narrow_for_its_name_goes_without() -> None:
    axes = Figure().subplots()
    mark_groups(axes, np.array(["many"] * 3 + ["medium"] * 17 + ["few"] * 80))
    assert [text.get_text() for text in axes.texts] == ["medium", "few"]
    assert len(axes.lines) == 2
