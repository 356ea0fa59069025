"""Removal of small holes and islands from masks.

Components are labelled with SciPy; pixels that touch at a corner belong together, in holes as in
islands.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from amg_pipeline.amg.boxes import mask_to_box
from amg_pipeline.amg.candidates import Candidates
from amg_pipeline.amg.kept_masks import KeptMasks
from amg_pipeline.amg.packed_masks import PackedMask, pack_mask, unpack_window
from amg_pipeline.config import AmgSettings

_EIGHT_CONNECTED = np.ones((3, 3), bool)


def remove_small_regions(
    candidates: Candidates, *, settings: AmgSettings, height: int, width: int
) -> Candidates:
    """Clean all masks of an image, then suppress those that became duplicates.

    Scores, points and crops stay as they are, and so do the boxes of unchanged masks.

    Args:
        candidates: Masks in the image frame.
        settings: `min_mask_region_area` > 0, the two suppression thresholds, and `nms_kind`.
        height: Rows of the image.
        width: Columns of the image.

    Returns:
        The masks that are left, the unchanged ones first.

    Source:
        `postprocess_small_regions` of the reference.
    """
    cleaned = [
        _clean_packed(mask, box, settings.min_mask_region_area, height=height, width=width)
        for mask, box in zip(candidates.masks, candidates.boxes_xyxy, strict=True)
    ]
    boxes = candidates.boxes_xyxy.copy()
    scores = np.ones(len(candidates), np.float32)
    for index, new in enumerate(cleaned):
        if new is not None:
            # Masks that needed no cleaning win over those that did.
            boxes[index], scores[index] = new[1], 0.0
    masks = KeptMasks(
        candidates.masks[index] if new is None else new[0] for index, new in enumerate(cleaned)
    )
    updated = replace(candidates, masks=masks, boxes_xyxy=boxes)
    threshold = max(settings.box_nms_thresh, settings.crop_nms_thresh)
    return updated.suppress(scores, threshold=threshold, settings=settings)


def _clean_packed(
    mask: PackedMask, box_xyxy: NDArray[np.int64], min_area: int, *, height: int, width: int
) -> tuple[PackedMask, tuple[int, int, int, int]] | None:
    """Clean one mask; None if it stays as it is."""
    x0, y0, x1, y1 = (int(side) for side in box_xyxy)
    # Background that leaves this window has crossed min_area pixels of margin and is no small
    # hole; all other components lie inside as a whole.
    left, top = max(x0 - min_area, 0), max(y0 - min_area, 0)
    right, bottom = min(x1 + 1 + min_area, width), min(y1 + 1 + min_area, height)
    window = unpack_window(mask, (left, top, right, bottom))
    filled, has_filled = fill_small_holes(window, min_area)
    cleaned, has_removed = drop_small_islands(filled, min_area, left=left, top=top)
    if not has_filled and not has_removed:
        return None
    box = mask_to_box(cleaned)
    moved = (box[0] + left, box[1] + top, box[2] + left, box[3] + top)
    return pack_mask(cleaned, left=left, top=top), moved


def fill_small_holes(mask: NDArray[np.bool_], min_area: int) -> tuple[NDArray[np.bool_], bool]:
    """Set components of the background, the outermost included, of fewer than `min_area` pixels.

    Args:
        mask: Bool `(height, width)`.
        min_area: Pixels from which on a component stays.

    Returns:
        The mask, and whether it differs from the one given.
    """
    labels, sizes = _label(~mask)
    is_small = sizes < min_area
    if not is_small.any():
        return mask, False
    # Label 0 is what was not labelled, that is, the mask.
    return np.concatenate([[True], is_small])[labels], True


def drop_small_islands(
    mask: NDArray[np.bool_], min_area: int, *, left: int = 0, top: int = 0
) -> tuple[NDArray[np.bool_], bool]:
    """Clear components of fewer than `min_area` pixels; the largest stays if all are small.

    Args:
        mask: Bool `(height, width)`.
        min_area: Pixels from which on a component stays.
        left: Column of the image where the mask begins, to settle ties as the reference does.
        top: Row of the image where the mask begins.

    Returns:
        The mask, and whether a small component was found. As in the reference, a mask that is
        one small component counts as changed, although it stays.
    """
    labels, sizes = _label(mask)
    keeps = sizes >= min_area
    if keeps.all():
        return mask, False
    if not keeps.any():
        keeps[_first_largest(labels, sizes, left=left, top=top)] = True
    return np.concatenate([[False], keeps])[labels], True


def _label(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Number the components from 1 on, and count the pixels of each."""
    labels, num_labels = ndimage.label(mask, structure=_EIGHT_CONNECTED)
    return labels, np.bincount(labels.ravel(), minlength=num_labels + 1)[1:]


def _first_largest(
    labels: NDArray[np.int32], sizes: NDArray[np.int64], *, left: int, top: int
) -> int:
    """Choose the largest component; of equals the first in OpenCV's order.

    OpenCV, which the reference uses, numbers components by the first block of 2 x 2 pixels of
    the image that they touch, row by row of blocks.
    """
    largest = np.flatnonzero(sizes == sizes.max())
    if len(largest) == 1:
        return int(largest[0])
    rows, columns = np.nonzero(np.isin(labels, largest + 1))
    order = np.lexsort([(columns + left) // 2, (rows + top) // 2])
    return int(labels[rows[order[0]], columns[order[0]]]) - 1
