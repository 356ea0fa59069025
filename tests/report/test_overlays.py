"""Masks over their photo."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from amg_pipeline.report.overlays import FILL_OPACITY, draw_masks, mask_colours, shrink
from amg_pipeline.report.sampled_masks import sample_masks
from tests.report.images import box_mask, make_image


def draw(
    pixels: NDArray[np.uint8], masks: Sequence[NDArray[np.bool_]], *, max_side: int = 5000
) -> NDArray[np.uint8]:
    photo = shrink(pixels, max_side=max_side)
    height, width = photo.shape[:2]
    image = make_image(masks, size=pixels.shape[:2])
    return draw_masks(photo, sample_masks(image, width=width, height=height))


def filled(colour: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The colour of a fill over the grey of `_gray`."""
    return (1 - FILL_OPACITY) * 100 + FILL_OPACITY * colour.astype(float)


def _gray(height: int, width: int, value: int = 100) -> NDArray[np.uint8]:
    return np.full((height, width, 3), value, np.uint8)


def test_mask_colours_differ_and_do_not_depend_on_their_number() -> None:
    many = mask_colours(100)

    assert many.shape == (100, 3)
    assert len({tuple(colour) for colour in many}) == 100
    np.testing.assert_array_equal(mask_colours(7), many[:7])
    assert mask_colours(0).shape == (0, 3)


def test_mask_colours_neighbours_are_far_apart() -> None:
    colours = mask_colours(200).astype(int)

    assert np.abs(np.diff(colours, axis=0)).sum(axis=1).min() > 80


def test_draw_masks_without_masks_returns_a_copy() -> None:
    pixels = _gray(4, 6)

    picture = draw(pixels, [])

    np.testing.assert_array_equal(picture, pixels)
    assert not np.shares_memory(picture, pixels)


def test_draw_masks_fills_inside_and_outlines_the_border() -> None:
    mask = box_mask((20, 20), slice(5, 15), slice(5, 15))

    picture = draw(_gray(20, 20), [mask])

    fill, border = picture[10, 10].astype(int), picture[5, 10].astype(int)
    colour = mask_colours(1)[0]
    np.testing.assert_allclose(fill, filled(colour), atol=1)
    assert border.sum() > fill.sum()
    np.testing.assert_array_equal(picture[5:15, 14], np.broadcast_to(border, (10, 3)))
    np.testing.assert_array_equal(picture[~mask], _gray(20, 20)[~mask])


def test_draw_masks_at_the_edge_of_the_picture_draws_no_border() -> None:
    picture = draw(_gray(10, 10), [np.ones((10, 10), np.bool_)])

    assert (picture == picture[0, 0]).all()


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["large-first", "small-first"])
def test_draw_masks_smaller_mask_lies_on_top(order: tuple[int, int]) -> None:
    whole = np.ones((21, 21), np.bool_)
    part = box_mask((21, 21), slice(5, 16), slice(5, 16))
    masks = [(whole, part)[i] for i in order]

    picture = draw(_gray(21, 21), masks)

    # Colours go by the order of drawing.
    colour = mask_colours(2)[1]
    np.testing.assert_allclose(picture[10, 10], filled(colour), atol=1)


def test_draw_masks_of_equal_area_paints_in_their_order() -> None:
    mask = np.ones((8, 8), np.bool_)

    picture = draw(_gray(8, 8), [mask, mask])

    np.testing.assert_allclose(picture[4, 4], filled(mask_colours(2)[1]), atol=1)


def test_draw_masks_on_a_covered_outline_shows_the_fill_above() -> None:
    below = box_mask((20, 20), slice(0, 20), slice(0, 12))
    above = box_mask((20, 20), slice(0, 20), slice(9, 20))

    picture = draw(_gray(20, 20), [below, above])

    np.testing.assert_array_equal(picture[10, 11], picture[10, 15])


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        pytest.param(200, 100, (50, 25), id="portrait"),
        pytest.param(100, 200, (25, 50), id="landscape"),
        pytest.param(40, 50, (40, 50), id="fits-already"),
        pytest.param(1, 5000, (1, 50), id="thinner-than-a-pixel"),
    ],
)
def test_draw_masks_with_max_side_keeps_masks_in_place(
    height: int, width: int, expected: tuple[int, int]
) -> None:
    mask = box_mask((height, width), slice(0, height), slice(0, width // 2))

    picture = draw(_gray(height, width), [mask], max_side=50)

    covered = (picture != 100).any(axis=2)
    assert picture.shape[:2] == expected
    left_half = np.arange(expected[1]) < expected[1] // 2
    np.testing.assert_array_equal(covered, np.broadcast_to(left_half, expected))


def test_draw_masks_thicker_outline_on_a_larger_picture() -> None:
    mask = box_mask((1000, 1000), slice(200, 800), slice(200, 800))

    picture = draw(_gray(1000, 1000), [mask])

    np.testing.assert_array_equal(picture[500, 201], picture[500, 200])
    assert (picture[500, 202] != picture[500, 201]).any()


def test_shrink_never_enlarges() -> None:
    pixels = _gray(3, 5)

    assert shrink(pixels, max_side=5) is pixels
    assert shrink(pixels, max_side=4).shape == (2, 4, 3)


@settings(max_examples=40)
@given(
    st.tuples(st.integers(1, 12), st.integers(1, 12)).flatmap(
        lambda size: st.lists(arrays(np.bool_, size), min_size=1, max_size=4)
    )
)
def test_draw_masks_changes_covered_pixels_only(masks: list[NDArray[np.bool_]]) -> None:
    pixels = _gray(*masks[0].shape, value=0)

    picture = draw(pixels, masks)

    covered = np.logical_or.reduce(masks)
    np.testing.assert_array_equal((picture != 0).any(axis=2), covered)
