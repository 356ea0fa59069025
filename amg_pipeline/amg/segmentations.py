"""Segmentations as COCO's files have them, polygons or run lengths, as masks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from amg_pipeline.amg.rle import rle_from_coco
from amg_pipeline.records import Rle

#: Of a polygon: two corners enclose nothing, and four numbers mean a box to pycocotools.
FEWEST_NUMBERS = 6


def draw_segmentation(segmentation: Any, *, height: int, width: int) -> Rle:
    """Draw a segmentation as pycocotools does.

    Args:
        segmentation: Polygons, each x, y, x, y, ... in pixels; what is outside of the image is cut
            off. Or run lengths in either notation, which have a size of their own.
        height: Rows of the image.
        width: Columns.

    Returns:
        The mask; empty if no polygon has three corners.

    Raises:
        StorageError: If run lengths are malformed.
        LookupError, TypeError, ValueError, OverflowError: If it is no segmentation.
    """
    if isinstance(segmentation, Mapping):
        return rle_from_coco(segmentation)
    corners = [np.reshape(np.asarray(part, np.float64), (-1, 2)) for part in segmentation]
    if not all(np.isfinite(part).all() for part in corners):
        raise ValueError("polygons with corners that are no numbers")
    # A corner far outside would cost memory by its distance.
    polygons = [
        np.clip(part, 0, (width, height)).ravel().tolist()
        for part in corners
        if part.size >= FEWEST_NUMBERS
    ]
    if not polygons:
        return Rle(height, width, np.array([height * width]))
    return rle_from_coco(coco_mask.merge(coco_mask.frPyObjects(polygons, height, width)))
