"""COCO's segmentations, checked when data are listed and not only when they are drawn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from amg_pipeline.amg.segmentations import FEWEST_NUMBERS


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
    polygons = [p for p in polygons if len(p) >= FEWEST_NUMBERS and len(p) % 2 == 0]
    if polygons:
        yield polygons
