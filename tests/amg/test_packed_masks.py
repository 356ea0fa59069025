from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from amg_pipeline.amg.boxes import mask_to_box
from amg_pipeline.amg.packed_masks import (
    crop_packed,
    intersection_area,
    pack_mask,
    shift_mask,
    unpack_window,
)

masks = hnp.arrays(bool, st.tuples(st.integers(1, 20), st.integers(1, 12)))
offsets = st.integers(0, 30)


def paste(mask: np.ndarray, *, left: int, top: int) -> np.ndarray:
    canvas = np.zeros((60, 50), bool)
    canvas[top : top + mask.shape[0], left : left + mask.shape[1]] = mask
    return canvas


@given(mask=masks, left=offsets, top=offsets)
def test_packing_keeps_every_pixel_in_its_place(mask: np.ndarray, left: int, top: int):
    packed = pack_mask(mask, left=left, top=top)
    assert packed.top % 8 == 0
    assert packed.area == mask.sum()
    window = unpack_window(packed, (0, 0, 50, 60))
    np.testing.assert_array_equal(window, paste(mask, left=left, top=top))


@given(mask=masks, dx=offsets, dy=offsets)
def test_shifting_moves_the_pixels(mask: np.ndarray, dx: int, dy: int):
    shifted = shift_mask(pack_mask(mask), dx=dx, dy=dy)
    window = unpack_window(shifted, (0, 0, 50, 60))
    np.testing.assert_array_equal(window, paste(mask, left=dx, top=dy))


@given(mask=masks)
def test_cropping_to_the_box_loses_nothing_and_keeps_no_batch(mask: np.ndarray):
    batch = np.packbits(mask.T, axis=1)
    cropped = crop_packed(batch, np.array(mask_to_box(mask)))
    height, width = mask.shape
    np.testing.assert_array_equal(unpack_window(cropped, (0, 0, width, height)), mask)
    assert not np.shares_memory(cropped.columns, batch)


def test_cropping_stores_the_bytes_of_the_box_only():
    mask = np.zeros((100, 100), bool)
    mask[17:30, 40:50] = True
    cropped = crop_packed(np.packbits(mask.T, axis=1), np.array([40, 17, 49, 29]))
    assert (cropped.left, cropped.top, cropped.columns.shape) == (40, 16, (10, 2))


@given(first=masks, second=masks, places=st.tuples(offsets, offsets, offsets, offsets))
def test_intersection_counts_common_pixels(
    first: np.ndarray, second: np.ndarray, places: tuple[int, int, int, int]
):
    a = {"left": places[0], "top": places[1]}
    b = {"left": places[2], "top": places[3]}
    expected = int((paste(first, **a) & paste(second, **b)).sum())
    assert intersection_area(pack_mask(first, **a), pack_mask(second, **b)) == expected


def test_window_beside_the_mask_is_empty():
    packed = pack_mask(np.ones((4, 4), bool), left=10, top=16)
    assert not unpack_window(packed, (0, 0, 10, 60)).any()
    assert not unpack_window(packed, (10, 0, 14, 16)).any()
    assert unpack_window(packed, (12, 18, 30, 30)).sum() == 4
