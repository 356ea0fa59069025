"""Rings of masks: rasterised as they are meant to be, they give the pixels they came from."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from amg_pipeline.export.polygons import (
    join_rings,
    simplify,
    soften,
    to_centres,
    trace_outline,
)
from amg_pipeline.export.shapes import rasterise_centres, rasterise_outline

MASKS = arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9)))


def fill_holes(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Fill what the outside does not reach, also around corners; and count the holes."""
    labels, number = ndimage.label(~np.pad(mask, 1), np.ones((3, 3)))
    return (labels != labels[0, 0])[1:-1, 1:-1], number - 1


@given(mask=MASKS)
def test_outline_covers_the_very_pixels_with_holes_filled(mask: np.ndarray) -> None:
    outline = trace_outline(mask)
    filled, num_holes = fill_holes(mask)

    assert outline.num_holes == num_holes
    assert len(outline.parts) >= ndimage.label(filled)[1]
    if mask.any():
        assert np.array_equal(rasterise_outline(list(outline.parts), mask.shape), filled)


@given(mask=MASKS)
def test_centres_cover_the_very_pixels_with_holes_filled(mask: np.ndarray) -> None:
    rings = [to_centres(ring) for ring in trace_outline(mask).parts]

    assert all(len(ring) >= 3 for ring in rings)
    assert np.array_equal(rasterise_centres(rings, mask.shape), fill_holes(mask)[0])


def test_outline_of_a_rectangle_is_its_four_corners_clockwise() -> None:
    mask = np.zeros((6, 8), bool)
    mask[1:4, 2:7] = True

    [ring] = trace_outline(mask).parts

    assert ring.tolist() == [[2, 1], [7, 1], [7, 4], [2, 4]]
    assert sorted(to_centres(ring).tolist()) == [[2, 1], [2, 3], [6, 1], [6, 3]]


def test_parts_come_largest_first_and_touching_corners_stay_apart() -> None:
    mask = np.zeros((6, 6), bool)
    mask[0, 0] = mask[1:4, 1:4] = True

    rings = trace_outline(mask).parts

    assert [len(ring) for ring in rings] == [4, 4]
    assert rings[0].min() == 1
    assert rings[1].max() == 1


def test_empty_mask_has_no_rings() -> None:
    outline = trace_outline(np.zeros((3, 3), bool))

    assert outline.parts == ()
    assert outline.num_holes == 0


def test_soften_turns_stairs_into_a_straight_line() -> None:
    stairs = np.tri(20, dtype=bool)
    [ring] = trace_outline(stairs).parts
    diagonal = simplify(soften(ring), tolerance=0.1)

    assert len(ring) == 42
    assert len(diagonal) <= 6


@pytest.mark.parametrize("tolerance", [0.3, 0.5, 2.0])
def test_simplified_ring_keeps_within_the_tolerance(tolerance: float) -> None:
    y, x = np.mgrid[:60, :60]
    [outline] = trace_outline(np.hypot(x - 30, y - 30) < 25).parts
    ring = soften(outline)
    simpler = simplify(ring, tolerance=tolerance)
    edges = zip(simpler, np.roll(simpler, -1, axis=0), strict=True)
    distances = np.min([_distance(ring, start, stop) for start, stop in edges], axis=0)

    assert 3 <= len(simpler) < len(ring)
    assert distances.max() <= tolerance


def test_simplify_leaves_a_ring_that_would_collapse() -> None:
    ring = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], float)

    assert len(simplify(ring, tolerance=100)) >= 3


def test_joined_rings_are_one_with_the_shortest_bridge() -> None:
    first = np.array([[0, 0], [4, 0], [4, 4], [0, 4]], float)
    second = np.array([[9, 4], [7, 4], [7, 1]], float)

    joined, length = join_rings([first, second])

    assert length == 3
    assert joined.tolist()[2:7] == [[4, 4], [7, 4], [7, 1], [9, 4], [7, 4]]
    assert joined.tolist()[7:] == [[4, 4], [0, 4]]


def _distance(points: np.ndarray, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
    way = stop - start
    along = np.clip((points - start) @ way / (way @ way), 0, 1)
    return np.linalg.norm(points - start - along[:, None] * way, axis=1)
