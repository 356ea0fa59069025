from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from amg_pipeline.amg.boxes import mask_to_box
from amg_pipeline.amg.candidates import Candidates
from amg_pipeline.amg.kept_masks import KeptMasks
from amg_pipeline.amg.packed_masks import pack_mask, unpack_window
from amg_pipeline.amg.regions import drop_small_islands, fill_small_holes, remove_small_regions
from amg_pipeline.config import AmgSettings
from amg_pipeline.records import CropBox


def draw(text: str) -> np.ndarray:
    return np.array([[character == "#" for character in line] for line in text.split()])


def candidates_of(*masks: np.ndarray) -> Candidates:
    height, width = masks[0].shape
    num_masks = len(masks)
    return Candidates(
        predicted_iou=np.linspace(0.9, 0.8, num_masks, dtype=np.float32),
        stability_score=np.full(num_masks, 0.97, np.float32),
        boxes_xyxy=np.array([mask_to_box(mask) for mask in masks]),
        points=np.arange(2.0 * num_masks).reshape(-1, 2),
        masks=KeptMasks(pack_mask(mask) for mask in masks),
        crops=(CropBox(0, 0, width, height, layer=0),) * num_masks,
    )


def clean(*masks: np.ndarray, min_area: int, **settings: float) -> tuple[Candidates, list]:
    height, width = masks[0].shape
    result = remove_small_regions(
        candidates_of(*masks),
        settings=AmgSettings(min_mask_region_area=min_area, **settings),
        height=height,
        width=width,
    )
    return result, [unpack_window(mask, (0, 0, width, height)) for mask in result.masks]


@pytest.mark.parametrize(
    ("before", "after", "changed"),
    [
        pytest.param("##### #.#.. ##### #####", "##### ###.. ##### #####", True, id="one-of-two"),
        pytest.param("###. #.#. ###. .###", "###. ###. ###. ####", True, id="single-pixels"),
        # Holes that touch at a corner are one hole of two pixels.
        pytest.param("##### #.### ##.## #####", "##### #.### ##.## #####", False, id="diagonal"),
        pytest.param("#### ###. #### ####", "#### #### #### ####", True, id="at-the-border"),
        pytest.param("### ### ###", "### ### ###", False, id="full"),
    ],
)
def test_holes_of_fewer_pixels_are_filled(before: str, after: str, changed: bool):
    filled, has_changed = fill_small_holes(draw(before), 2)
    np.testing.assert_array_equal(filled, draw(after))
    assert has_changed is changed


@pytest.mark.parametrize(
    ("before", "after", "changed"),
    [
        pytest.param("#.... ..##. ..##.", "..... ..##. ..##.", True, id="one-pixel"),
        pytest.param("##... ..... ..###", "..... ..... ..###", True, id="below-the-limit"),
        pytest.param("#.... .#... ..#..", "#.... .#... ..#..", False, id="diagonal"),
        pytest.param("#.... ..... ...##", "..... ..... ...##", True, id="largest-of-small-stays"),
        pytest.param("..... ..... ...##", "..... ..... ...##", True, id="only-one-is-small"),
        pytest.param("..... .....", "..... .....", False, id="empty"),
    ],
)
def test_islands_of_fewer_pixels_are_dropped(before: str, after: str, changed: bool):
    kept, has_changed = drop_small_islands(draw(before), 3)
    np.testing.assert_array_equal(kept, draw(after))
    assert has_changed is changed


@pytest.mark.parametrize(
    ("offset", "kept"),
    [
        # Blocks of 2 x 2 pixels of the image, row by row, number the components in OpenCV: in
        # the first row of blocks the left pixel comes first although it lies lower.
        ((0, 0), "...... #....."),
        # One row further down, the two pixels belong to different rows of blocks.
        ((0, 1), "...#.. ......"),
        ((1, 0), "...... #....."),
    ],
)
def test_of_equal_small_islands_the_one_in_the_first_block_stays(
    offset: tuple[int, int], kept: str
):
    mask = draw("...#.. #.....")
    left, top = offset
    result, _ = drop_small_islands(mask, 5, left=left, top=top)
    np.testing.assert_array_equal(result, draw(kept))


@given(
    mask=hnp.arrays(bool, st.tuples(st.integers(1, 24), st.integers(1, 24))),
    box=st.tuples(st.integers(0, 23), st.integers(0, 23), st.integers(1, 24), st.integers(1, 24)),
    min_area=st.integers(1, 40),
)
def test_cleaning_around_the_box_equals_cleaning_the_whole_image(
    mask: np.ndarray, box: tuple[int, int, int, int], min_area: int
):
    x0, y0, width, height = box
    only = np.zeros_like(mask)
    only[y0 : y0 + height, x0 : x0 + width] = mask[y0 : y0 + height, x0 : x0 + width]
    expected, _ = drop_small_islands(fill_small_holes(only, min_area)[0], min_area)
    result, (cleaned,) = clean(only, min_area=min_area)
    np.testing.assert_array_equal(cleaned, expected)
    assert tuple(result.boxes_xyxy[0]) == mask_to_box(expected)


@pytest.mark.parametrize("shape", [(1, 40), (40, 1)])
def test_large_background_of_a_thin_image_is_no_hole(shape: tuple[int, int]):
    # One pixel less of margin around the box would show too little of the background.
    mask = np.zeros(shape, bool)
    mask.reshape(-1)[15:25] = True
    _, (cleaned,) = clean(mask, min_area=5)
    np.testing.assert_array_equal(cleaned, mask)


def test_unchanged_masks_come_first_and_win():
    spotted = np.zeros((40, 40), bool)
    spotted[5:35, 5:35] = True
    plain = spotted.copy()
    spotted[0, 0] = True
    other = np.zeros((40, 40), bool)
    other[20:30, 30:40] = True
    result, masks = clean(spotted, other, plain, min_area=20)
    # The spotted one, best by score, becomes a copy of the plain one and goes.
    assert result.points.tolist() == [[2.0, 3.0], [4.0, 5.0]]
    np.testing.assert_array_equal(masks[1], plain)


def test_scores_stay_while_box_and_mask_change():
    mask = np.zeros((40, 40), bool)
    mask[10:30, 10:30] = True
    mask[39, 39] = True
    result, (cleaned,) = clean(mask, min_area=9)
    assert result.boxes_xyxy.tolist() == [[10, 10, 29, 29]]
    assert cleaned.sum() == 400
    assert result.stability_score.tolist() == [np.float32(0.97)]


def test_the_larger_threshold_decides():
    first = np.zeros((40, 40), bool)
    first[0:20, 0:20] = True
    second = np.zeros((40, 40), bool)
    second[0:20, 0:17] = True
    loose, _ = clean(first, second, min_area=5, box_nms_thresh=0.5, crop_nms_thresh=0.9)
    strict, _ = clean(first, second, min_area=5, box_nms_thresh=0.5, crop_nms_thresh=0.6)
    assert (len(loose), len(strict)) == (2, 1)


def test_no_masks_stay_no_masks():
    nothing = candidates_of(np.ones((4, 4), bool)).take(np.empty(0, np.intp))
    settings = AmgSettings(min_mask_region_area=5)
    assert len(remove_small_regions(nothing, settings=settings, height=4, width=4)) == 0
