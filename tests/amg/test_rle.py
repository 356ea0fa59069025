from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco_mask

from amg_pipeline.amg.boxes import mask_to_box
from amg_pipeline.amg.packed_masks import crop_packed, pack_mask, shift_mask
from amg_pipeline.amg.rle import (
    decode_mask,
    decode_window,
    encode_mask,
    encode_packed,
    rle_from_coco,
    rle_to_coco,
    rle_to_uncompressed,
)
from amg_pipeline.errors import StorageError
from amg_pipeline.records import Rle

masks = hnp.arrays(bool, st.tuples(st.integers(1, 20), st.integers(1, 12)))


@pytest.mark.parametrize(
    ("rows", "counts"),
    [
        pytest.param([[0, 0], [0, 0]], [4], id="empty"),
        pytest.param([[1, 1], [1, 1]], [0, 4], id="full"),
        pytest.param([[1]], [0, 1], id="one-pixel"),
        pytest.param([[1, 0], [0, 0]], [0, 1, 3], id="first-pixel"),
        pytest.param([[0, 0], [0, 1]], [3, 1], id="last-pixel"),
        pytest.param([[0, 1], [1, 0]], [1, 2, 1], id="run-over-a-column-end"),
        pytest.param([[0, 0, 0], [1, 0, 1]], [1, 1, 3, 1], id="runs-at-column-ends"),
    ],
)
def test_runs_go_down_the_columns(rows: list[list[int]], counts: list[int]):
    rle = encode_mask(np.array(rows, bool))
    assert rle.counts.tolist() == counts
    assert rle.area == np.sum(rows)
    assert rle_to_uncompressed(rle) == {"size": [len(rows), len(rows[0])], "counts": counts}


@given(masks)
def test_decoding_undoes_encoding(mask: np.ndarray):
    rle = encode_mask(mask)
    np.testing.assert_array_equal(decode_mask(rle), mask)
    assert rle.area == mask.sum()
    assert (rle.counts[1:] > 0).all()


@given(masks)
def test_strings_equal_those_of_pycocotools(mask: np.ndarray):
    expected = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    encoded = rle_to_coco(encode_mask(mask))
    assert encoded == {"size": list(mask.shape), "counts": expected["counts"].decode()}


@given(mask=masks, dx=st.integers(0, 20), dy=st.integers(0, 20))
def test_encoding_of_a_moved_crop_equals_that_of_the_whole_image(
    mask: np.ndarray, dx: int, dy: int
):
    height, width = mask.shape[0] + dy + 3, mask.shape[1] + dx
    image = np.zeros((height, width), bool)
    image[dy : dy + mask.shape[0], dx:] = mask
    cropped = crop_packed(np.packbits(mask.T, axis=1), np.array(mask_to_box(mask)))
    rle = encode_packed(shift_mask(cropped, dx=dx, dy=dy), height=height, width=width)
    assert rle.counts.tolist() == encode_mask(image).counts.tolist()


def test_columns_that_fill_the_height_make_one_run():
    # The mask's rows end within the image's last byte, and at a byte's end.
    for height in (13, 16):
        packed = pack_mask(np.ones((height, 5), bool), left=2)
        rle = encode_packed(packed, height=height, width=9)
        assert rle.counts.tolist() == [2 * height, 5 * height, 2 * height]


@given(masks)
def test_both_notations_are_read_back(mask: np.ndarray):
    rle = encode_mask(mask)
    as_bytes = {"size": list(mask.shape), "counts": rle_to_coco(rle)["counts"].encode()}
    for segmentation in (rle_to_coco(rle), rle_to_uncompressed(rle), as_bytes):
        read = rle_from_coco(segmentation)
        assert (read.height, read.width) == mask.shape
        assert read.counts.tolist() == rle.counts.tolist()


@given(st.lists(st.integers(1, 2**27), min_size=1, max_size=12))
def test_strings_of_large_masks_are_read_back(counts: list[int]):
    rle = Rle(sum(counts), 1, np.array(counts, np.int64))
    assert rle_from_coco(rle_to_coco(rle)).counts.tolist() == counts


@pytest.mark.parametrize(
    "counts",
    [
        pytest.param("", id="nothing"),
        pytest.param("4P", id="number-without-an-end"),
        pytest.param("4 1", id="character-below-the-alphabet"),
        pytest.param("4\x80", id="character-above-the-alphabet"),
        pytest.param("o" * 20 + "0", id="number-of-twenty-characters"),
        pytest.param("3", id="too-few-pixels"),
        pytest.param("5", id="too-many-pixels"),
        pytest.param("5O", id="negative-run"),
        pytest.param([1, 2], id="list-too-short"),
        pytest.param([5, -1], id="list-with-negative-run"),
    ],
)
def test_damaged_counts_are_refused(counts: str | list[int]):
    with pytest.raises(StorageError, match="damaged"):
        rle_from_coco({"size": [2, 2], "counts": counts})


@given(
    mask=hnp.arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))),
    corners=st.tuples(*[st.integers(0, 9)] * 4),
)
def test_window_is_cut_out_of_the_whole_mask(mask: np.ndarray, corners: tuple[int, ...]):
    height, width = mask.shape
    left, right = sorted(min(x, width) for x in corners[:2])
    top, bottom = sorted(min(y, height) for y in corners[2:])
    window = decode_window(encode_mask(mask), (left, top, right, bottom))
    np.testing.assert_array_equal(window, mask[top:bottom, left:right])
