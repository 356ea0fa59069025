"""Non-maximum suppression: of masks that overlap too much, the higher scored one stays."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from amg_pipeline.amg.packed_masks import PackedMask, intersection_area

_IsDuplicate = Callable[[int, NDArray[np.intp]], NDArray[np.bool_]]


def suppress_boxes(
    boxes_xyxy: NDArray[np.int64], scores: NDArray[np.float32], *, threshold: float
) -> NDArray[np.intp]:
    """Suppress by the IoU of boxes.

    Args:
        boxes_xyxy: `(N, 4)`. Width is right minus left; a box without area therefore
            suppresses nothing and is never suppressed.
        scores: `(N,)`; of equal scores the first wins.
        threshold: A box is dropped if its IoU with a kept one is greater than this.

    Returns:
        Indices of the kept boxes, by descending score.

    Source:
        `nms` of torchvision on the CPU: float32 areas and IoU, compared in float64.
    """
    x0, y0, x1, y1 = boxes_xyxy.astype(np.float32).T
    areas = (x1 - x0) * (y1 - y0)

    def is_duplicate(kept: int, others: NDArray[np.intp]) -> NDArray[np.bool_]:
        width = np.minimum(x1[kept], x1[others]) - np.maximum(x0[kept], x0[others])
        height = np.minimum(y1[kept], y1[others]) - np.maximum(y0[kept], y0[others])
        intersection = np.maximum(width, 0) * np.maximum(height, 0)
        with np.errstate(invalid="ignore"):
            iou = intersection / (areas[kept] + areas[others] - intersection)
        duplicate: NDArray[np.bool_] = iou.astype(np.float64) > threshold
        return duplicate

    return _keep_greedily(scores, is_duplicate)


def suppress_masks(
    masks: Sequence[PackedMask], scores: NDArray[np.float32], *, threshold: float
) -> NDArray[np.intp]:
    """Suppress by the IoU of the masks themselves; order and ties as in `suppress_boxes`.

    Args:
        masks: `N` masks of one frame. Empty ones suppress nothing and are never suppressed.
        scores: `(N,)`.
        threshold: A mask is dropped if its IoU with a kept one is greater than this.

    Returns:
        Indices of the kept masks, by descending score.
    """
    areas = np.array([mask.area for mask in masks], np.int64)

    def is_duplicate(kept: int, others: NDArray[np.intp]) -> NDArray[np.bool_]:
        smaller = np.minimum(areas[kept], areas[others])
        larger = np.maximum(areas[kept], areas[others])
        # The IoU is at most the ratio of the areas, which settles most pairs without their bits.
        with np.errstate(invalid="ignore"):
            duplicate: NDArray[np.bool_] = smaller / larger > threshold
        for position in np.flatnonzero(duplicate):
            other = int(others[position])
            intersection = intersection_area(masks[kept], masks[other])
            union = int(areas[kept]) + int(areas[other]) - intersection
            duplicate[position] = intersection / union > threshold
        return duplicate

    return _keep_greedily(scores, is_duplicate)


def suppress_contained(
    masks: Sequence[PackedMask], scores: NDArray[np.float32], *, threshold: float
) -> NDArray[np.intp]:
    """Suppress by the part of the smaller of two masks that the larger covers.

    Args:
        masks: `N` masks of one frame. Empty ones suppress nothing and are never suppressed.
        scores: `(N,)`; of equal scores the first wins.
        threshold: A mask is dropped if this part is greater for it and a kept one.

    Returns:
        Indices of the kept masks, by descending score.
    """
    areas = np.array([mask.area for mask in masks], np.int64)

    def is_duplicate(kept: int, others: NDArray[np.intp]) -> NDArray[np.bool_]:
        common = [intersection_area(masks[kept], masks[int(other)]) for other in others]
        smaller = np.maximum(np.minimum(areas[kept], areas[others]), 1)
        duplicate: NDArray[np.bool_] = np.array(common, np.int64) / smaller > threshold
        return duplicate

    return _keep_greedily(scores, is_duplicate)


def _keep_greedily(scores: NDArray[np.float32], is_duplicate: _IsDuplicate) -> NDArray[np.intp]:
    remaining = np.argsort(-scores, kind="stable")
    kept = []
    while remaining.size:
        best, others = int(remaining[0]), remaining[1:]
        kept.append(best)
        remaining = others[~is_duplicate(best, others)]
    return np.array(kept, np.intp)
