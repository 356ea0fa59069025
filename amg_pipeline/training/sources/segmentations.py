"""COCO's segmentations: polygons, and run lengths in either notation, checked before use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from amg_pipeline.amg.rle import decode_mask, rle_from_coco


def check_segmentation(segmentation: Any, *, height: int, width: int) -> Iterator[Any]:
    """Give a segmentation in a form that takes little memory, if it can be drawn.

    Args:
        segmentation: As the file has it.
        height: Rows of the image.
        width: Columns.

    Yields:
        Run lengths as they were, or a list of float64 arrays of x, y, x, y, ...; nothing for
        polygons without an area.

    Raises:
        ValueError, TypeError, KeyError: If it is neither, or not of this image.
    """
    if isinstance(segmentation, Mapping):
        if list(segmentation["size"]) != [height, width]:
            raise ValueError(f"a mask of {segmentation['size']} that its image has not")
        if not isinstance(segmentation["counts"], str | list):
            raise TypeError("counts that are neither text nor numbers")
        yield {"size": [height, width], "counts": segmentation["counts"]}
        return
    polygons = [np.array([float(value) for value in polygon]) for polygon in segmentation]
    if not all(np.isfinite(polygon).all() for polygon in polygons):
        raise ValueError("a polygon with a coordinate that is no number")
    # Two points enclose nothing, and four numbers mean a box to pycocotools.
    polygons = [p for p in polygons if len(p) >= 6 and len(p) % 2 == 0]
    if polygons:
        yield polygons


def decode_segmentation(segmentation: Any, *, height: int, width: int) -> NDArray[np.bool_]:
    """Draw a segmentation that was checked.

    Returns:
        Bool `(height, width)`.

    Raises:
        StorageError, ValueError, TypeError, OverflowError: If its runs are no mask of that size.
    """
    if isinstance(segmentation, Mapping):
        return decode_mask(rle_from_coco(segmentation))
    # A corner far outside would cost memory by its distance.
    limit = (width, height)
    clipped = [
        np.clip(polygon.reshape(-1, 2), 0, limit).ravel().tolist() for polygon in segmentation
    ]
    drawn = coco_mask.merge(coco_mask.frPyObjects(clipped, height, width))
    return decode_mask(rle_from_coco(drawn))
