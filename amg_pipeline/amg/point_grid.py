"""Where the point prompts lie: regular grids, one per crop layer, and regions of interest."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from amg_pipeline.config import AmgSettings

#: Corners XYXY in pixels, right and bottom exclusive, or a bool mask `(height, width)`.
RegionOfInterest = tuple[float, float, float, float] | NDArray[np.bool_]


def build_point_grid(points_per_side: int) -> NDArray[np.float64]:
    """Space points evenly over the unit square, half a step away from its border.

    Args:
        points_per_side: Points along each side; > 0.

    Returns:
        XY in [0, 1], float64 `(points_per_side ** 2, 2)`, row by row, x running fastest.

    Source:
        `build_point_grid` of the reference.
    """
    offset = 1 / (2 * points_per_side)
    side = np.linspace(offset, 1 - offset, points_per_side)
    x, y = np.meshgrid(side, side)
    return np.stack([x.ravel(), y.ravel()], axis=-1)


def build_layer_point_grids(settings: AmgSettings) -> list[NDArray[np.float64]]:
    """Build the grid of every crop layer, or take those that the settings give.

    Returns:
        One grid per layer, layer 0 (the whole image) first; each float64 `(points, 2)`, XY as
        fractions of a crop's width and height.

    Source:
        `build_all_layer_point_grids` of the reference.
    """
    if settings.point_grids is not None:
        return [np.asarray(grid, np.float64).reshape(-1, 2) for grid in settings.point_grids]
    grids = []
    for layer in range(settings.crop_n_layers + 1):
        factor = settings.crop_n_points_downscale_factor**layer
        # AmgSettings guarantees that there are no grids instead, and that no layer is empty.
        grids.append(build_point_grid((settings.points_per_side or 0) // factor))
    return grids


def is_inside_region(
    points: NDArray[np.float64], region: RegionOfInterest | None
) -> NDArray[np.bool_]:
    """Tell which points lie in a region of interest.

    Args:
        points: XY in the image frame, `(P, 2)`.
        region: A box holds its left and top border and not its right and bottom one; a mask
            holds the points of its pixels, a point's pixel being its coordinates rounded down.
            None holds everything.

    Returns:
        Bool `(P,)`.
    """
    if region is None:
        return np.ones(len(points), bool)
    x, y = points[:, 0], points[:, 1]
    if isinstance(region, np.ndarray):
        height, width = region.shape
        is_on_image = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        column, row = np.floor(x).astype(np.intp), np.floor(y).astype(np.intp)
        inside = np.zeros(len(points), bool)
        inside[is_on_image] = region[row[is_on_image], column[is_on_image]]
    else:
        x0, y0, x1, y1 = region
        inside = (x0 <= x) & (x < x1) & (y0 <= y) & (y < y1)
    return inside
