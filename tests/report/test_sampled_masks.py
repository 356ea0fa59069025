"""Masks in the size of a picture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from amg_pipeline.errors import StorageError
from amg_pipeline.report.sampled_masks import SampledMask, sample_masks
from tests.report.images import box_mask, make_image

Mask = NDArray[np.bool_]


def whole(mask: SampledMask, *, height: int, width: int) -> Mask:
    picture = np.zeros((height, width), np.bool_)
    picture[mask.slices] = mask.pixels
    return picture


@settings(max_examples=60)
@given(
    st.tuples(st.integers(1, 14), st.integers(1, 14)).flatmap(lambda size: arrays(np.bool_, size)),
    st.tuples(st.integers(1, 14), st.integers(1, 14)),
)
def test_picture_has_the_pixels_below_its_own(mask: Mask, size: tuple[int, int]) -> None:
    height, width = (min(pair) for pair in zip(size, mask.shape, strict=True))
    rows = ((np.arange(height) + 0.5) * mask.shape[0] / height).astype(int)
    columns = ((np.arange(width) + 0.5) * mask.shape[1] / width).astype(int)
    expected = mask[np.ix_(rows, columns)]

    found = sample_masks(make_image([mask]), width=width, height=height)

    assert len(found) == bool(mask.any())
    if expected.any():
        np.testing.assert_array_equal(whole(found[0], height=height, width=width), expected)
    elif found:
        assert found[0].pixels.sum() == 1


def test_tiny_mask_is_one_pixel_where_it_lies() -> None:
    mask = box_mask((1000, 1000), slice(903, 904), slice(301, 302))

    [found] = sample_masks(make_image([mask]), width=100, height=100)

    assert (found.left, found.top, found.pixels.tolist()) == (30, 90, [[True]])


def test_parts_come_after_their_wholes() -> None:
    masks = [box_mask((9, 9), slice(0, side), slice(0, side)) for side in (3, 9, 1, 3)]

    found = sample_masks(make_image(masks), width=9, height=9)

    assert [mask.index for mask in found] == [1, 0, 3, 2]


@pytest.mark.parametrize("counts", ["", "no RLE \x7f", "05"])
def test_malformed_counts_are_a_storage_error(counts: str) -> None:
    image = replace(make_image([np.ones((4, 4), np.bool_)]), counts=[counts])

    with pytest.raises(StorageError):
        sample_masks(image, width=4, height=4)
