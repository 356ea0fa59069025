from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco_mask

from amg_pipeline.amg.boxes import (
    boxes_to_image_frame,
    is_box_near_crop_edge,
    mask_to_box,
    xyxy_to_coco_xywh,
    xyxy_to_reference_xywh,
)
from amg_pipeline.records import CropBox

CROP = CropBox(100, 100, 300, 300, layer=1)


@pytest.mark.parametrize(
    ("box_in_image", "near"),
    [
        pytest.param((150, 150, 250, 250), False, id="inside"),
        pytest.param((120, 150, 250, 250), True, id="left-at-tolerance"),
        pytest.param((121, 150, 250, 250), False, id="left-past-tolerance"),
        pytest.param((150, 120, 250, 250), True, id="top"),
        pytest.param((150, 150, 280, 250), True, id="right-at-tolerance"),
        pytest.param((150, 150, 279, 250), False, id="right-past-tolerance"),
        pytest.param((150, 150, 250, 299), True, id="bottom"),
    ],
)
def test_boxes_at_the_edge_of_a_crop_are_found(box_in_image: tuple[int, ...], near: bool):
    boxes = np.array([box_in_image]) - 100
    assert is_box_near_crop_edge(boxes, CROP, height=400, width=400).tolist() == [near]


def test_edges_that_are_the_images_too_do_not_count():
    crop = CropBox(0, 5, 200, 205, layer=1)
    boxes = np.array([[0, 0, 100, 100], [0, 0, 199, 100], [50, 50, 100, 199]])
    near = is_box_near_crop_edge(boxes, crop, height=210, width=400)
    # The second reaches the crop's right edge, which lies inside the image.
    assert near.tolist() == [False, True, False]


def test_whole_image_has_no_crop_edge():
    crop = CropBox(0, 0, 60, 50, layer=0)
    boxes = np.array([[0, 0, 59, 49], [0, 0, 0, 0]])
    assert not is_box_near_crop_edge(boxes, crop, height=50, width=60).any()


def test_boxes_move_with_their_crop():
    crop = CropBox(7, 3, 20, 20, layer=1)
    assert boxes_to_image_frame(np.array([[0, 1, 2, 3]]), crop).tolist() == [[7, 4, 9, 6]]


def test_reference_box_is_one_pixel_short():
    assert xyxy_to_reference_xywh((3, 4, 3, 9)) == (3, 4, 0, 5)


@given(hnp.arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_coco_box_equals_pycocotools(mask: np.ndarray):
    expected = coco_mask.toBbox(coco_mask.encode(np.asfortranarray(mask, np.uint8)))
    box = xyxy_to_coco_xywh(mask_to_box(mask), area=int(mask.sum()))
    assert list(box) == expected.tolist()


def test_empty_mask_has_a_zero_box_wherever_its_crop_lies():
    assert mask_to_box(np.zeros((3, 4), bool)) == (0, 0, 0, 0)
    assert xyxy_to_coco_xywh((9, 9, 9, 9), area=0) == (0, 0, 0, 0)
