from __future__ import annotations

import numpy as np
import pytest

from amg_pipeline.amg.point_grid import (
    build_layer_point_grids,
    build_point_grid,
    is_inside_region,
)
from amg_pipeline.config import AmgSettings, amg_settings
from amg_pipeline.errors import ConfigError


def test_grid_runs_along_rows_half_a_step_inside():
    grid = build_point_grid(2)
    assert grid.tolist() == [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]]
    assert grid.dtype == np.float64


def test_grid_of_one_point_is_the_centre():
    assert build_point_grid(1).tolist() == [[0.5, 0.5]]


def test_layers_are_thinned_by_the_factor_rounded_down():
    settings = AmgSettings(points_per_side=9, crop_n_layers=2, crop_n_points_downscale_factor=2)
    assert [len(grid) for grid in build_layer_point_grids(settings)] == [81, 16, 4]


def test_given_grids_are_taken_as_they_are():
    settings = AmgSettings(points_per_side=None, point_grids=(((0.1, 0.2), (0.3, 0.4)),))
    (grid,) = build_layer_point_grids(settings)
    assert grid.tolist() == [[0.1, 0.2], [0.3, 0.4]]


def test_layer_without_points_is_refused_with_its_number():
    with pytest.raises(ConfigError, match="0 in crop layer 3"):
        amg_settings(points_per_side=4, crop_n_layers=3, crop_n_points_downscale_factor=2)


@pytest.mark.parametrize(
    ("point", "inside"),
    [
        ((2.0, 3.0), True),  # left and top border belong to the box
        ((1.999, 3.0), False),
        ((5.999, 7.999), True),
        ((6.0, 7.0), False),  # right border does not
        ((5.0, 8.0), False),  # nor the bottom
        ((2.0, 2.999), False),
    ],
)
def test_box_holds_its_left_and_top_border_only(point: tuple[float, float], inside: bool):
    assert is_inside_region(np.array([point]), (2.0, 3.0, 6.0, 8.0)).tolist() == [inside]


@pytest.mark.parametrize(
    ("point", "inside"),
    [
        ((1.0, 0.0), True),
        ((1.999, 0.999), True),  # rounded down, not to the nearest
        ((0.999, 0.5), False),
        ((1.5, 1.0), False),
        ((3.0, 0.5), False),  # right of the image, where no pixel is
        ((1.5, 2.0), False),
        ((-0.5, 0.5), False),  # must not wrap round to the last column
    ],
)
def test_mask_holds_the_points_of_its_pixels(point: tuple[float, float], inside: bool):
    region = np.array([[False, True, True], [False, False, True]])
    assert is_inside_region(np.array([point]), region).tolist() == [inside]


def test_no_region_holds_every_point():
    assert is_inside_region(np.array([[-1.0, 5.0], [1e9, 0.0]]), None).all()
