from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amg_pipeline.amg.nms import suppress_boxes, suppress_contained, suppress_masks
from amg_pipeline.amg.packed_masks import pack_mask

# The last column is what torchvision 0.29 keeps (torchvision.ops.nms on the CPU).
TORCHVISION = [
    pytest.param(
        [[0, 0, 10, 10], [1, 1, 9, 9], [0, 0, 10, 10]], [0.5, 0.9, 0.7], 0.5, [1], id="nested"
    ),
    pytest.param(
        [[0, 0, 10, 10], [0, 0, 10, 9], [50, 50, 60, 60], [50, 50, 60, 61]],
        [0.5, 0.5, 0.5, 0.5],
        0.7,
        [0, 2],
        id="of-equal-scores-the-first-wins",
    ),
    pytest.param(
        [[0, 0, 10, 10], [0, 0, 10, 7]], [0.9, 0.8], 0.7, [0, 1], id="iou-0.7-at-0.7-stays"
    ),
    # float32(0.6) is greater than the threshold in float64.
    pytest.param([[0, 0, 10, 10], [0, 0, 10, 6]], [0.9, 0.8], 0.6, [0], id="iou-0.6-at-0.6-goes"),
    pytest.param(
        [[0, 0, 2, 2], [0, 0, 2, 1]], [0.9, 0.8], 0.5, [0, 1], id="iou-exactly-at-threshold"
    ),
    pytest.param([[0, 0, 100, 100], [0, 0, 100, 71]], [0.9, 0.8], 0.7, [0], id="just-above"),
    pytest.param(
        [[5, 5, 5, 5], [5, 5, 5, 5], [0, 5, 10, 5], [0, 0, 10, 10]],
        [0.9, 0.8, 0.7, 0.6],
        0.0,
        [0, 1, 2, 3],
        id="boxes-without-area-never-take-part",
    ),
    pytest.param(
        [[0, 0, 10, 10], [10, 0, 20, 10], [9, 9, 20, 20]],
        [0.9, 0.8, 0.7],
        0.0,
        [0, 1],
        id="threshold-0-allows-touching-only",
    ),
    pytest.param(
        [[0, 0, 10, 10], [0, 0, 10, 10]], [0.9, 0.8], 1.0, [0, 1], id="threshold-1-keeps-copies"
    ),
    pytest.param(
        [[0, 0, 10, 10], [3, 0, 13, 10], [6, 0, 16, 10]],
        [0.9, 0.8, 0.7],
        0.5,
        [0, 2],
        id="what-is-dropped-suppresses-nothing",
    ),
    pytest.param(
        [[0, 0, 4095, 4095], [1, 0, 4095, 4095], [0, 0, 4096, 4097]],
        [0.3, 0.2, 0.1],
        0.9995,
        [0, 2],
        id="areas-beyond-float32-integers",
    ),
    pytest.param(np.empty((0, 4)), [], 0.7, [], id="none"),
]


@pytest.mark.parametrize(("boxes", "scores", "threshold", "kept"), TORCHVISION)
def test_boxes_are_suppressed_as_in_torchvision(
    boxes: list[list[int]], scores: list[float], threshold: float, kept: list[int]
):
    result = suppress_boxes(
        np.array(boxes, np.int64), np.array(scores, np.float32), threshold=threshold
    )
    assert result.tolist() == kept
    assert result.dtype == np.intp


coordinates = st.integers(0, 8)
scored_boxes = st.lists(
    st.tuples(coordinates, coordinates, coordinates, coordinates, st.integers(0, 3)), max_size=25
)


@given(rows=scored_boxes, threshold=st.sampled_from([0.0, 0.3, 0.5, 0.7, 0.9]))
def test_box_suppression_equals_the_plain_double_loop(
    rows: list[tuple[int, ...]], threshold: float
):
    boxes = np.array([(x, y, x + w, y + h) for x, y, w, h, _ in rows], np.int64).reshape(-1, 4)
    scores = np.array([row[4] for row in rows], np.float32)

    def iou(i: int, j: int) -> float:
        low, high = np.maximum(boxes[i, :2], boxes[j, :2]), np.minimum(boxes[i, 2:], boxes[j, 2:])
        common = np.prod(np.maximum(high - low, 0))
        areas = [np.prod(boxes[k, 2:] - boxes[k, :2]) for k in (i, j)]
        union = sum(areas) - common
        return float(np.float32(common) / np.float32(union)) if union else 0.0

    kept: list[int] = []
    for i in sorted(range(len(rows)), key=lambda index: -scores[index]):
        if all(iou(i, k) <= threshold for k in kept):
            kept.append(i)
    assert suppress_boxes(boxes, scores, threshold=threshold).tolist() == kept


@given(seed=st.integers(0, 10_000), threshold=st.sampled_from([0.0, 0.2, 0.5, 0.7, 1.0]))
def test_mask_suppression_equals_the_plain_double_loop(seed: int, threshold: float):
    rng = np.random.default_rng(seed)
    canvases = np.zeros((12, 24, 20), bool)
    packed = []
    for canvas in canvases:
        left, top, width, height = rng.integers(0, [8, 10, 12, 14])
        part = rng.random((height, width)) < 0.9
        canvas[top : top + height, left : left + width] = part
        packed.append(pack_mask(part, left=int(left), top=int(top)))
    scores = rng.integers(0, 3, len(packed)).astype(np.float32)

    kept: list[int] = []
    for i in sorted(range(len(packed)), key=lambda index: -scores[index]):
        unions = [(canvases[i] | canvases[k]).sum() for k in kept]
        commons = [(canvases[i] & canvases[k]).sum() for k in kept]
        if all(common <= threshold * union for common, union in zip(commons, unions, strict=True)):
            kept.append(i)
    assert suppress_masks(packed, scores, threshold=threshold).tolist() == kept


def test_masks_with_one_box_but_few_common_pixels_both_stay():
    # A frame and its filling: the boxes overlap by 64 %, the masks not at all.
    frame = np.ones((20, 20), bool)
    frame[2:18, 2:18] = False
    masks = [pack_mask(frame), pack_mask(~frame)]
    scores = np.array([0.9, 0.8], np.float32)
    boxes = np.array([[0, 0, 19, 19], [2, 2, 17, 17]])
    assert suppress_masks(masks, scores, threshold=0.5).tolist() == [0, 1]
    assert suppress_boxes(boxes, scores, threshold=0.5).tolist() == [0]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.9])
def test_containment_suppression_equals_the_plain_double_loop(seed: int, threshold: float):
    random = np.random.default_rng(seed)
    masks = [np.zeros((20, 20), bool)]
    for x, y, width, height in random.integers(1, 12, (14, 4)):
        mask = np.zeros((20, 20), bool)
        mask[y : y + height, x : x + width] = True
        masks.append(mask)
    scores = (random.integers(0, 5, len(masks)) / 5).astype(np.float32)
    expected: list[int] = []
    for index in np.argsort(-scores, kind="stable").tolist():
        parts = [
            (masks[index] & masks[other]).sum()
            / max(1, min(masks[index].sum(), masks[other].sum()))
            for other in expected
        ]
        if not any(part > threshold for part in parts):
            expected.append(index)
    kept = suppress_contained([pack_mask(m) for m in masks], scores, threshold=threshold)
    assert kept.tolist() == expected
