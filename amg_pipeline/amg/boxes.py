"""Arithmetic on boxes of masks; `xyxy` are inclusive pixel corners."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from amg_pipeline.records import CropBox

#: Distance in pixels up to which a side of a box counts as lying on an edge.
EDGE_TOLERANCE_PX = 20


def is_box_near_crop_edge(
    boxes_xyxy: NDArray[np.int64], crop: CropBox, *, height: int, width: int
) -> NDArray[np.bool_]:
    """Tell which boxes are cut off by their crop and not by the image itself.

    Args:
        boxes_xyxy: `(N, 4)` in the crop frame.
        crop: The crop.
        height: Rows of the image.
        width: Columns of the image.

    Returns:
        Bool `(N,)`: some side lies within `EDGE_TOLERANCE_PX` of the crop's same side, and not
        within it of the image's same side.

    Source:
        `is_box_near_crop_edge` of the reference.
    """
    sides = boxes_to_image_frame(boxes_xyxy, crop)
    crop_sides = np.array([crop.x0, crop.y0, crop.x1, crop.y1])
    image_sides = np.array([0, 0, width, height])
    near_crop = np.abs(sides - crop_sides) <= EDGE_TOLERANCE_PX
    near_image = np.abs(sides - image_sides) <= EDGE_TOLERANCE_PX
    near: NDArray[np.bool_] = np.any(near_crop & ~near_image, axis=1)
    return near


def boxes_to_image_frame(boxes_xyxy: NDArray[np.int64], crop: CropBox) -> NDArray[np.int64]:
    """Move boxes `(N, 4)` from a crop's frame to the image frame."""
    moved: NDArray[np.int64] = boxes_xyxy + np.array([crop.x0, crop.y0, crop.x0, crop.y0])
    return moved


def mask_to_box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Find the inclusive corners XYXY of the set pixels; all zero for an empty mask.

    Args:
        mask: Bool `(height, width)`.
    """
    rows = np.flatnonzero(mask.any(axis=1))
    if not len(rows):
        return (0, 0, 0, 0)
    columns = np.flatnonzero(mask.any(axis=0))
    return (int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1]))


def xyxy_to_reference_xywh(box_xyxy: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """Convert inclusive corners to the reference's `bbox`: right minus left, bottom minus top.

    Width and height are one pixel short of the pixels covered; see `xyxy_to_coco_xywh`.
    """
    x0, y0, x1, y1 = box_xyxy
    return (x0, y0, x1 - x0, y1 - y0)


def xyxy_to_coco_xywh(
    box_xyxy: tuple[int, int, int, int], *, area: int
) -> tuple[int, int, int, int]:
    """Convert inclusive corners to COCO's tight box, equal to pycocotools' `toBbox`.

    Args:
        box_xyxy: Inclusive corners of a mask.
        area: The mask's pixels; an empty mask has the box `(0, 0, 0, 0)`.
    """
    if area == 0:
        return (0, 0, 0, 0)
    x0, y0, x1, y1 = box_xyxy
    return (x0, y0, x1 - x0 + 1, y1 - y0 + 1)
